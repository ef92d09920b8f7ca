"""CEL rules of the CRDs: what one object can decide, each with what to write instead. Pure values.

They say what the validators of `spec` and `spec_pool` say, so that the API server refuses at once what the operator
could only put into a condition. Keyed by class, by field of a class, and by format (see `schema`).
"""

from dataclasses import dataclass

from cotenant_operator.schema import DURATION, NAME, QUANTITY, SIZE
from cotenant_operator.spec_pods import HEAD_TAKEN, WORKER_TAKEN, Taken
from cotenant_operator.spec_pool import MIG_RESOURCE
from cotenant_operator.tasks import FIELD_TASKS, TASKS, misplaced

_NAME = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_RFC1123 = "must be lower-case letters, digits and '-', and begin and end with a letter or digit (RFC 1123)"
_NAME_MESSAGE = f"metadata.name {_RFC1123}, at most 40 characters"
_REPO = "[A-Za-z0-9_][A-Za-z0-9_.-]*"
_REVISION = "[A-Za-z0-9_][A-Za-z0-9_./+-]*"
_SOURCE = f"self.matches('^hf://{_REPO}(/{_REPO})?(@{_REVISION})?$') && !self.contains('..')"
_FOLDER = "self.matches('^file://(/|\\\\./|\\\\.\\\\./)') && !self.matches('[[:cntrl:]]')"
_NO_PARENT = "!self.startsWith('file:///') || !self.matches('/\\\\.\\\\.(/|$)')"
_TIME = "^([0-9.]+h)?([0-9.]+m)?([0-9.]+s)?([0-9.]+ms)?$"


@dataclass(frozen=True, slots=True)
class Rule:
    """One entry of x-kubernetes-validations."""

    rule: str
    message: str
    field: str = ""
    """The field, below the schema that has the rule, that is to blame: `.min`."""


OBJECT = (Rule(f"self.metadata.name.size() <= 40 && self.metadata.name.matches('{_NAME}')", _NAME_MESSAGE),)
"""Of every kind."""

# The API server takes a field that may be text or a number for 3 MB of text, and estimates the cost of a rule for
# each item of a list: there is no room for regular expressions, and each rule may read the text once. What slips
# through, such as 0.0Gi, the operator refuses. Numbers are held by `minimum`.
_QUANTITY = Rule(
    "type(self) == int || isQuantity(self)", "must be a quantity of bytes such as 12Gi, 9856Mi, 1.5G or 1073741824"
)
_NOT_NEGATIVE = Rule("type(self) == int || !self.startsWith('-')", "must not be below 0; write a size such as 12Gi")
_NOT_ZERO = Rule(
    "type(self) == int || !(self in ['0', '0k', '0M', '0G', '0T', '0Ki', '0Mi', '0Gi', '0Ti'])",
    "must be above 0; write a size such as 12Gi",
)
_WHOLE_BYTES = Rule(
    "type(self) == int || !self.endsWith('m')", "must be whole bytes; M is a million bytes, Mi 1048576 of them"
)
FORMATS: dict[str, tuple[Rule, ...]] = {
    NAME: (Rule(f"self.matches('{_NAME}')", _RFC1123),),
    QUANTITY: (_QUANTITY, _NOT_NEGATIVE, _WHOLE_BYTES),
    SIZE: (_QUANTITY, _NOT_NEGATIVE, _WHOLE_BYTES, _NOT_ZERO),
    DURATION: (
        Rule(
            f"type(self) == int ? self == 0 : self != '' && self.matches('{_TIME}')",
            "must be a duration such as 10m, 1h30m or 45s, with each unit once and the largest first",
        ),
    ),
}

_MIN_MAX = Rule(
    "self.min <= self.max",
    "min is above max; raise max or lower min",
    ".min",
)


def _own_names(taken: Taken) -> Rule:
    """Of a `podTemplate`."""
    where, names = f"self.spec.{taken.list}", ", ".join(f"'{name}'" for name in taken.names)
    return Rule(
        f"!has(self.spec) || !has({where}) || !{where}.exists(item, has(item.name) && item.name in [{names}])",
        f"the name {' or '.join(taken.names)} {taken.message}",
        f".spec.{taken.list}",
    )


FIELDS: dict[tuple[str, str], tuple[Rule, ...]] = {
    ("ModelDeploymentSpec", "model"): (
        Rule(f"({_SOURCE}) || ({_FOLDER})", "must be hf://owner/name, hf://owner/name@revision, or file:///folder"),
        Rule(_NO_PARENT, "must be the folder's own path, without '..'"),
    ),
    ("ModelDeploymentSpec", "pool"): (
        Rule(
            "self == oldSelf", "cannot be changed; make another ModelDeployment in the other pool, then delete this"
        ),
    ),
    ("GpuShare", "mig"): (
        Rule("self.matches('^[1-9]g[.][0-9]{1,3}gb([.]me)?$')", "must be a MIG profile such as 1g.10gb"),
    ),
    ("GpuShare", "whole"): (Rule("self", "must be true; leave it out otherwise"),),
    ("GpuShare", "fraction"): (
        Rule("self > 0.0 && self <= 1.0", "must be above 0 and at most 1; write gpu.memory for a size in bytes"),
    ),
    ("Engine", "batchWait"): (
        Rule(
            "type(self) == int || !self.matches('[hm]([^s]|$)') && "
            "(self.endsWith('ms') ? true : double(self.replace('s', '')) <= 1.0)",
            "must be at most 1s: every request of a model that is not busy waits for so long",
        ),
    ),
    ("Worker", "resource"): (
        Rule(
            "self == '' || self.matches('^[a-z0-9]([-a-z0-9.]*[a-z0-9])?/[A-Za-z0-9]([-A-Za-z0-9_.]*[A-Za-z0-9])?$')",
            "must be an extended resource of Kubernetes, DOMAIN/NAME, such as nvidia.com/gpu",
        ),
    ),
    ("Worker", "podTemplate"): tuple(map(_own_names, WORKER_TAKEN)),
    ("Head", "podTemplate"): tuple(map(_own_names, HEAD_TAKEN)),
    ("Redis", "address"): (
        Rule("self.matches('^[^[:space:]]*[^[:space:]:]:[0-9]{1,5}$')", "must be host:port, such as redis:6379"),
    ),
    ("Hub", "endpoint"): (
        Rule("self.matches('^https?://')", "must begin with https:// or http://, such as https://huggingface.co"),
    ),
    ("Cache", "path"): (Rule("self.startsWith('/')", "must be an absolute path, such as /var/lib/cotenant/models"),),
    ("GPUPoolSpec", "idleAfter"): (
        Rule(
            "type(self) == string && (self.matches('[hm]') || double(self.replace('s', '')) >= 10.0)",
            "must be at least 10s, or pods go between two requests",
        ),
    ),
}

CLASSES: dict[str, tuple[Rule, ...]] = {
    "GpuShare": (
        Rule(
            "[has(self.memory), has(self.fraction), has(self.mig), has(self.whole)].filter(given, given).size() == 1",
            "exactly one of memory, fraction, mig, whole is allowed; "
            "leave spec.gpu out to have the share sized by the estimate",
        ),
    ),
    "Replicas": (_MIN_MAX,),
    "Worker": (
        Rule(
            f"(self.sharing == 'mig') == (has(self.resource) && self.resource.startsWith('{MIG_RESOURCE}'))",
            f"sharing does not match resource: sharing mig goes with {MIG_RESOURCE}<profile>, and only with it",
            field=".sharing",
        ),
        _MIN_MAX,
    ),
}


def _engine_rules() -> tuple[Rule, ...]:
    """Fields of `spec.engine` go with tasks; without a task every one but echo is possible."""
    rules = []
    for field, tasks in FIELD_TASKS.items():
        inside = ", ".join(f"'{task}'" for task in tasks)
        others = [task for task in TASKS if task not in tasks]
        ((path, message),) = misplaced([field], others)
        absent = f"!has(self.engine) || !has(self.{path})"
        unset = "!has(self.task) || " if set(tasks) != {"echo"} else "has(self.task) && "
        rules.append(Rule(f"{absent} || ({unset}self.task in [{inside}])", f"{path} {message}", field=f".{path}"))
    return tuple(rules)


CLASSES["ModelDeploymentSpec"] = (
    Rule(
        "has(self.model) || (has(self.task) && self.task == 'echo')",
        "model is missing; set model: hf://owner/name or file:///folder (or task: echo, which needs none)",
    ),
    Rule(
        "!has(self.model) || !has(self.task) || self.task != 'echo'",
        "model is not for task echo, which loads nothing; remove it",
        field=".model",
    ),
    *_engine_rules(),
)
