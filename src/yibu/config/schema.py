"""The schema of yibu.yaml, and of nothing else. ``yibu config schema`` publishes it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Literal, Self

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    model_validator,
)

from yibu.config.engines import EngineName
from yibu.config.names import check_name
from yibu.config.values import (
    YEAR,
    check_apart,
    check_host,
    check_keep,
    check_seconds,
    check_size,
    check_sleep,
    refuse_switch,
)
from yibu.messages import tr

_ALIAS = r"^\S([^\r\n]*\S)?$"

_Number = BeforeValidator(refuse_switch)


Size = Annotated[
    int,
    BeforeValidator(check_size),
    Field(gt=0, lt=2**63),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "integer", "exclusiveMinimum": 0},
                {"type": "string", "pattern": r"^(\d+\.?\d*|\.\d+)\s*([KMGTkmgt][Ii]?)?[Bb]?$"},
            ]
        }
    ),
]


Seconds = Annotated[
    float,
    BeforeValidator(check_seconds),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "number", "minimum": 0, "maximum": YEAR},
                {"type": "string", "pattern": r"^\d+(\.\d+)?\s*[smhd]?$"},
            ]
        }
    ),
]


HostName = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]+$")]
"""Without a scheme and a port."""
Address = Annotated[
    str,
    AfterValidator(check_host),
    WithJsonSchema({"type": "string", "pattern": r"^[A-Za-z0-9._:%\[\]-]+$"}),
]
Name = Annotated[
    str,
    AfterValidator(check_name),
    WithJsonSchema({"type": "string", "minLength": 1, "maxLength": 200}),
]
VariableName = Annotated[str, Field(pattern=r"^[^=\x00]+$")]


class _Part(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=False)


class GatewaySchema(_Part):
    """The gateway: the HTTP server in front of the engines."""

    host: Address = Field(
        "127.0.0.1", description="Address to listen on. Others than loopback want a key."
    )
    port: Annotated[int, _Number] = Field(
        8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one."
    )
    api_keys: list[str] = Field(
        default_factory=list,
        description="Keys that clients may use. Write ${env.NAME} rather than the key itself.",
    )
    api_key_file: str | None = Field(
        None, description="A file of mode 0600 with one key a line, instead of api_keys."
    )
    max_body: Size = Field(32 * 2**20, description="Largest JSON request.")
    max_upload: Size = Field(512 * 2**20, description="Largest audio upload.")
    cors_origins: list[str] = Field(
        default_factory=list, description="Web origins whose pages may call the gateway."
    )
    hosts: list[HostName] = Field(
        default_factory=list,
        description="Names beside localhost and addresses that a gateway without keys answers to.",
    )
    request_timeout: Seconds = Field(
        600,
        gt=0,
        le=YEAR,
        description="Seconds without a byte from the engine before a request is given up.",
    )
    drain_timeout: Seconds = Field(
        30, ge=0, le=YEAR, description="Seconds that requests in flight get when the node stops."
    )
    keep: KeepText = Field("always", description="`keep` of models that do not say themselves.")
    max_connections: Annotated[int, _Number] = Field(
        4096,
        ge=1,
        description="Clients connected at once; fewer where the system allows fewer open files.",
    )
    funasr_port: Annotated[int, _Number] | None = Field(
        None,
        ge=0,
        le=65535,
        description="A second port, on which every websocket is FunASR's (its own is 10095).",
    )
    idle_timeout: Seconds = Field(
        300, gt=0, le=YEAR, description="Seconds without a message that end a live session."
    )
    max_live_audio: Seconds | None = Field(
        None, gt=0, description="Seconds of audio that one live session may send."
    )
    log_format: Literal["text", "json"] = Field(
        "text", description="The node's log: lines of text, or an object a line."
    )

    @model_validator(mode="after")
    def _ports_apart(self) -> Self:
        if self.port and self.port == self.funasr_port:
            raise ValueError(tr("port and funasr_port are both {port}", port=self.port))
        return self


KeepText = Annotated[
    str,
    AfterValidator(check_keep),
    WithJsonSchema({"type": "string", "pattern": r"^(always|manual|idle( \d+(\.\d+)?[smhd]?)?)$"}),
]


SleepText = Annotated[
    str,
    BeforeValidator(check_sleep),
    WithJsonSchema(
        {
            "anyOf": [
                {"type": "string", "pattern": r"^(off|(auto|1|2)( \d+(\.\d+)?[smhd]?)?)$"},
                {"enum": [1, 2, False]},
            ]
        }
    ),
]


GroupName = Annotated[str, Field(min_length=1, max_length=100)]


class GroupSchema(_Part):
    """Models that are not all loaded together although memory would do."""

    name: GroupName = Field(description="The same for all of its models.")
    swap: bool = Field(True, description="Only one of its models is loaded at a time.")
    exclusive: bool = Field(
        False, description="One of its models unloads those of other groups, and of none."
    )
    persistent: bool = Field(False, description="Its models do not yield to exclusive groups.")


class AutoscaleSchema(_Part):
    """How the number of a model's replicas follows its load."""

    min: Annotated[int, _Number] = Field(
        1, ge=0, le=64, description="Fewest replicas; 0 unloads it when it is idle."
    )
    max: Annotated[int, _Number] = Field(ge=1, le=64, description="Most replicas.")
    target: Annotated[float, _Number] = Field(
        0.8, gt=0, le=1, description="Part of the replicas' slots that is to be in use."
    )

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min > self.max:
            raise ValueError(
                tr("min is {min}, which is more than max, {max}", min=self.min, max=self.max)
            )
        return self


class LimitsSchema(_Part):
    """What all callers together may ask of a model."""

    rpm: Annotated[int, _Number, Field(ge=1)] | None = Field(None, description="Requests a minute.")
    tpm: Annotated[int, _Number, Field(ge=1)] | None = Field(
        None, description="Tokens a minute, of prompts and answers."
    )
    concurrency: Annotated[int, _Number, Field(ge=1)] | None = Field(
        None, description="Requests at once."
    )


class ModelSchema(_Part):
    """A model: a name served to clients, its source, engine and options."""

    name: Name = Field(description="What clients ask for.")
    aliases: list[Annotated[str, Field(min_length=1, max_length=500, pattern=_ALIAS)]] = Field(
        default_factory=list, description="Further names that clients may ask for."
    )
    source: str = Field(
        "",
        description=(
            "modelscope:ORG/NAME, hf:ORG/NAME (:Q4_K_M for one quantization, @REV, #FILE), a hub's "
            "address, pypi:DIST==VER#FILE or a path; a bare ORG/NAME means ModelScope."
        ),
    )
    engine: EngineName | None = Field(
        None, description="Found from the model's files when left out."
    )
    options: dict[str, Any] = Field(
        default_factory=dict,
        description="The engine's own options; names it does not know become its flags.",
    )
    flags: list[str] = Field(
        default_factory=list, description="Command line flags for the engine, as they stand."
    )
    env: dict[VariableName, str] = Field(
        default_factory=dict, description="Extra environment variables for the engine's process."
    )
    gpus: (
        Annotated[list[Annotated[int, _Number, Field(ge=0, lt=1024)]], AfterValidator(check_apart)]
        | None
    ) = Field(None, description="Indices of the GPUs to use; chosen by the plan when left out.")
    memory: Size | None = Field(None, description="Memory the model may take, such as 6GiB.")
    replicas: Annotated[int, _Number] = Field(
        1, ge=1, le=64, description="How many engine processes to run."
    )
    limits: LimitsSchema = Field(
        LimitsSchema(), description="What all callers together may ask of it."
    )
    keep: KeepText | None = Field(
        None,
        description="How long it stays loaded: always, manual (as `yibu load NAME` and `yibu unload NAME` say),"
        " or `idle 10m`: loaded when somebody asks for it, unloaded after so long without a request,"
        " or when another model needs its memory. gateway.keep where left out.",
    )
    sleep: SleepText = Field(
        "auto",
        description="Whether an idle vLLM gives its GPUs' memory up without ending: auto (level 1, where"
        " main memory has room for the weights), 1, 2 (the weights are read from disk again) or off;"
        " with a time (`auto 6h`) it is unloaded after so long asleep.",
    )
    preload: bool | None = Field(
        None, description="Load it when it is brought up, and not at its first request only."
    )
    group: GroupName | GroupSchema | None = Field(
        None, description="Its name: of the models of one group only one is loaded at a time."
    )
    autoscale: AutoscaleSchema | None = Field(
        None, description="Replicas by load, instead of `replicas`."
    )
    max_concurrency: Annotated[int, _Number, Field(ge=1)] | None = Field(
        None, description="Requests at once of one replica; found from its engine when left out."
    )
    max_queue: Annotated[int, _Number] = Field(
        1000, ge=0, le=1_000_000, description="Requests that may wait; more are refused with 429."
    )
    queue_timeout: Seconds = Field(
        600, gt=0, le=YEAR, description="Seconds that a request may wait for its turn."
    )

    @model_validator(mode="after")
    def _one_number(self) -> Self:
        if self.autoscale is not None and self.replicas != 1:
            raise ValueError(
                tr("replicas and autoscale both say how many replicas there are; leave one out")
            )
        return self


class FileSchema(_Part):
    """yibu.yaml: what this machine serves."""

    model_config = ConfigDict(
        title="yibu.yaml", json_schema_extra={"patternProperties": {"^x-": {}}}
    )

    gateway: GatewaySchema = GatewaySchema()
    models: list[ModelSchema] = Field(default_factory=list)


def published(say: Callable[[str], str] = tr) -> dict[str, Any]:
    """The file's JSON Schema, with its descriptions in this process's language."""

    def said(node: Any) -> Any:
        if isinstance(node, list):
            return [said(item) for item in node]
        if not isinstance(node, dict):
            return node
        return {
            key: say(value) if key == "description" and isinstance(value, str) else said(value)
            for key, value in node.items()
        }

    schema: dict[str, Any] = said(FileSchema.model_json_schema())
    return schema
