"""Plain prose that recurrent encoders read before a sentence, where they are to begin neither at zero nor at
what happened to come before it.
"""

from __future__ import annotations

from typing import Final

WARM_TEXTS: Final = {
    "en": (
        "The town lies on a river, a few miles from the sea. "
        "Most of the people who live there work in the harbour, in the shops of the main street or on the "
        "farms around it. "
        "Last year the council decided to build a new bridge, because the old one had become too narrow for "
        "the traffic. "
        'Some were glad of it; others said that the money should have gone to the school. "We have waited '
        'for ten years," the mayor told them, "and we will not wait any longer." '
        "When the work began in March, it rained for two weeks, and nothing could be done. "
        "By the end of the summer, however, the first cars drove over to the other side. "
        "She still thinks that it was a mistake, but her children cross it every day."
    ),
    "zh": (
        "这座小城位于河边，离海只有几公里。"
        "住在这里的人大多在港口、商店或者附近的农村工作。"
        "去年，市政府决定修建一座新桥，因为旧桥太窄，已经不能满足交通的需要。"
        "有人很高兴，也有人认为这笔钱应该用来办学校。"
        "市长说：“我们已经等了十年，不能再等下去了。”"
        "三月份开工的时候，连续下了两个星期的雨，什么工作也做不了。"
        "不过到了夏天结束的时候，第一批汽车已经开到了对岸。"
        "她仍然觉得这是一个错误，但是她的孩子们每天都从桥上走过。"
    ),
}
