"""Any encoder of transformers as a guest in our tasks, recipes and comparison."""
