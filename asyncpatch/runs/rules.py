"""Step rules by the names that the command line and rows have for them.

Invariant: a setting that a rule would not heed is refused.
"""

from typing import Literal, get_args

from asyncpatch.sampling import DDIM, AbstractStepRule, Heun, Multistep

RuleName = Literal["ddim", "multistep", "heun"]


def step_rule(name: RuleName, eta: float) -> AbstractStepRule:
    """The rule of this name, with the share `eta` of fresh noise in each step.

    Raises `ValueError` for a name that is none, and for a share above 0 of a rule that draws no noise.
    """
    drawing = {"ddim": DDIM, "multistep": Multistep}
    if name in drawing:
        return drawing[name](eta)
    if name != "heun":
        raise ValueError(f"step rules are called {', '.join(get_args(RuleName))}; got {name}, choose from these")
    if eta != 0:
        raise ValueError(f"the rule {name} draws no fresh noise, got eta={eta}; give eta=0, or another rule")
    return Heun()
