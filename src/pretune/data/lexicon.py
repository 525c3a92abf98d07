"""Runs of text that the word rules know by heart: abbreviations, contractions, emoticons, as in spaCy."""

from __future__ import annotations

from typing import Final

EMOTICONS: Final = r"""
:) :-) :)) :-)) :))) :-))) (: (-: =) (= :] :-] [: [-: [= =] :o) (o: :} :-} 8) 8-) (-8 ;) ;-)
(; (-; :( :-( :(( :-(( :((( :-((( ): )-: =( >:( :') :'-) :'( :'-( :/ :-/ =/ =| :| :-| ]= =[
:1 :P :-P :p :-p :O :-O :o :-o :0 :-0 :() >:o :* :-* :3 :-3 =3 :> :-> :X :-X :x :-x :D :-D
;D ;-D =D xD XD xDD XDD 8D 8-D ^_^ ^__^ ^___^ >.< >.> <.< ._. ;_; -_- -__- v.v V.V v_v V_V
o_o o_O O_o O_O 0_o o_0 0_0 o.O O.o O.O o.o 0.0 o.0 0.o @_@ <3 <33 <333 </3 (^_^) (-_-)
(._.) (>_<) (*_*) (¬_¬) ಠ_ಠ ಠ︵ಠ (ಠ_ಠ) ¯\(ツ)/¯ (╯°□°）╯︵┻━┻ ><(((*>
"""
# In every language, as are a. to z.
WHOLE: Final = r"""
\t \n — ' \") <space> '' C++ ä. ö. ü.
"""
ABBREVIATIONS: Final = r"""
doin doin' goin goin' nothin nothin' nuthin nuthin' ol ol' somethin somethin' em 'em ll 'll
nuff 'nuff 'S 's ‘S ‘s and/or w/o 're 'cause 'cos 'coz 'cuz 'bout ma'am o'clock lovin lovin'
havin havin' Doin Doin' Goin Goin' Nothin Nothin' Nuthin Nuthin' Ol Ol' Somethin Somethin'
'Cause 'Cos 'Coz 'Cuz Ma'am O'clock Lovin Lovin' Havin Havin' Mt. Ak. Ala. Apr. Ariz. Ark.
Aug. Calif. Colo. Conn. Dec. Del. Feb. Fla. Ga. Ia. Id. Ill. Ind. Jan. Jul. Jun. Kan. Kans.
Ky. La. Mar. Mass. Mich. Minn. Miss. N.C. N.D. N.H. N.J. N.M. N.Y. Neb. Nebr. Nev. Nov. Oct.
Okla. Ore. Pa. S.C. Sep. Sept. Tenn. Va. Wash. Wis. 'd a.m. Adm. Bros. co. Co. Corp. D.C.
Dr. e.g. E.g. E.G. Gen. Gov. i.e. I.e. I.E. Inc. Jr. Ltd. Md. Messrs. Mo. Mont. Mr. Mrs. Ms.
p.m. Ph.D. Prof. Rep. Rev. Sen. St. vs. v.s.
"""
# Who takes which endings; spaCy splits all of these without their apostrophe too (dont -> do nt).
CONTRACTIONS: Final = {
    "i": "'m 'm|a",
    "i you he she it we they": "'ll 'll|'ve 'd 'd|'ve",
    "i you we they": "'ve",
    "you we they": "'re",
    "he she it": "'s",
    "who what when where why how there that this these those": "'ll 'll|'ve 'd 'd|'ve",
    "who what when where why how there that this": "'s",
    "who what when where why how there these those": "'re 've",
    "ca could do does did had may might must need ought sha should wo would": "n't n't|'ve",
    "could might must should would": "'ve",
    "ai are is was were have has dare": "n't",
}
NO_CONTRACTIONS: Final = r"""
Ill ill Its its Hell hell Shell shell Shed shed were Were Well well Whore whore
"""
SPLIT: Final = r"""
y'|all y|all how|'d|'y How|'d|'y not|'ve not|ve Not|'ve Not|ve can|not Can|not gon|na Gon|na
got|ta Got|ta let|'s Let|'s c'm|on C'm|on
"""


def known(language: str) -> dict[str, tuple[str, ...]]:
    """Runs that no rule may touch, and contractions, with their words; a curly ’ is as good as a '."""
    runs: dict[str, tuple[str, ...]] = {run: (run,) for run in (*EMOTICONS.split(), *WHOLE.split())}
    runs |= {f"{letter}.": (f"{letter}.",) for letter in "abcdefghijklmnopqrstuvwxyz"}
    splits: set[tuple[str, ...]] = {("°", unit, ".") for unit in "cfkCFK"}
    if language == "en":
        runs |= {run: (run,) for run in ABBREVIATIONS.split()}
        splits |= contractions() | {tuple(entry.split("|")) for entry in SPLIT.split()}
        halves = ("am", "pm", "a.m.", "p.m.")
        splits |= {(str(hour), half) for hour in range(1, 13) for half in halves}
    if language == "fr":
        runs["aujourd'hui"] = ("aujourd'hui",)
    runs |= {"".join(words): words for words in splits}
    return runs | {
        run.replace("'", "’"): tuple(word.replace("'", "’") for word in words) for run, words in runs.items()
    }


def contractions() -> set[tuple[str, ...]]:
    splits: set[tuple[str, ...]] = set()
    for who, endings in CONTRACTIONS.items():
        for start in (*who.split(), *who.title().split()):
            for ending in endings.split():
                words = (start, *ending.split("|"))
                splits |= {words, tuple(word.replace("'", "") for word in words)}
    return {words for words in splits if "".join(words) not in NO_CONTRACTIONS.split()}
