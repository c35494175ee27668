"""Step rules by the names that the command line and rows have for them.

Invariant: a setting that a rule would not heed is refused.
"""

from typing import Literal, get_args

from asyncpatch.sampling import DDIM, AbstractStepRule, Heun, Multistep

RuleName = Literal["ddim", "multistep", "heun"]


RULES: dict[str, type[AbstractStepRule]] = {"ddim": DDIM, "multistep": Multistep, "heun": Heun}


def rule_class(name: RuleName, eta: float) -> type[AbstractStepRule]:
    """The class of the rule of this name, for what is to be known of it before JAX starts.

    Raises `ValueError` for a name that is none, and for a share above 0 of a rule that draws no noise.
    """
    if name not in RULES:
        raise ValueError(f"step rules are called {', '.join(get_args(RuleName))}; got {name}, choose from these")
    if not issubclass(RULES[name], DDIM | Multistep) and eta != 0:
        raise ValueError(f"the rule {name} draws no fresh noise, got eta={eta}; give eta=0, or another rule")
    return RULES[name]


def step_rule(name: RuleName, eta: float) -> AbstractStepRule:
    """The rule of this name, with the share `eta` of fresh noise in each step. Raises as `rule_class` does."""
    rule = rule_class(name, eta)
    return rule(eta) if issubclass(rule, DDIM | Multistep) else rule()
