"""Kubernetes: plain YAML that ``kubectl apply -f`` takes, and a kustomization to lay changes over it.

Sources: the API reference of Kubernetes 1.30 and later; Pod Security Standards, level ``restricted``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from yibu import __version__
from yibu.errors import UsageError
from yibu.export.deployment import (
    CONFIG_FOLDER,
    DATA,
    MODELS,
    PASSED,
    USER,
    ExportedDeployment,
    File,
    Files,
)
from yibu.export.notes import Notes
from yibu.messages import tr

_KEY_FOLDER = "/run/yibu"
_KEY_NAME = "api_keys"
_METRICS_KEY = "metrics-key"


@dataclass(frozen=True, slots=True)
class Cluster:
    """Settings of a cluster that yibu.yaml does not have."""

    namespace: str | None = None
    storage_class: str | None = None
    """None: the cluster's own default."""
    storage: str = "100Gi"
    """Size of each of the two volumes."""
    memory: str | None = None
    cpu: str | None = None
    service_monitor: bool = False


def export(deployment: ExportedDeployment, cluster: Cluster) -> Files:
    """A file an object, and a kustomization that names them all.

    Raises:
        UsageError: it is not known how many GPUs a pod is to ask for.
    """
    if deployment.gpus is None:
        raise UsageError("A pod asks for a number of GPUs, not for all.", hint="Write: --gpus 1")
    made = _Objects(deployment, cluster)
    files = {
        "configmap.yaml": made.config_map(),
        "statefulset.yaml": made.stateful_set(),
        "service.yaml": made.service(),
        "poddisruptionbudget.yaml": made.disruption_budget(),
        "networkpolicy.yaml": made.network_policy(),
    }
    if cluster.service_monitor:
        files["servicemonitor.yaml"] = made.service_monitor()
    files["kustomization.yaml"] = made.kustomization(tuple(files))
    return {name: File(text) for name, text in files.items()}


@dataclass(frozen=True, slots=True)
class _Objects:
    deployment: ExportedDeployment
    cluster: Cluster

    @property
    def _select(self) -> dict[str, str]:
        return {
            "app.kubernetes.io/name": "yibu",
            "app.kubernetes.io/instance": self.deployment.name,
        }

    @property
    def _secret(self) -> str:
        return f"{self.deployment.name}-secrets"

    @property
    def _optional(self) -> list[str]:
        return [name for name in PASSED if name not in self.deployment.secrets]

    def _object(self, version: str, kind: str, name: str, **body: Any) -> dict[str, Any]:
        metadata: dict[str, Any] = {"name": name}
        if self.cluster.namespace:
            metadata["namespace"] = self.cluster.namespace
        metadata["labels"] = {
            **self._select,
            "app.kubernetes.io/version": __version__,
            "app.kubernetes.io/managed-by": "yibu-export",
        }
        return {"apiVersion": version, "kind": kind, "metadata": metadata, **body}

    def config_map(self) -> str:
        name = f"{self.deployment.name}-config"
        made = self._object("v1", "ConfigMap", name, data={"yibu.yaml": self.deployment.text})
        lines: list[str] = [tr("yibu.yaml as it was exported; it holds no secret.")]
        if self.deployment.local:
            lines.append(tr(
                "It names files that no pod has. Copy them into the models volume, write their paths there\n"
                "in yibu.yaml, and export again:"
            ))  # fmt: skip
            lines += [
                "  " + tr("{here} as {inside}", here=path.here, inside=f"{MODELS}/{path.here.name}")
                for path in self.deployment.local
            ]
        return Notes().dump(made, top="\n".join(lines))

    def stateful_set(self) -> str:
        deployment, notes = self.deployment, Notes()
        template = {
            "metadata": {
                "labels": self._select,
                "annotations": {
                    **notes.why("A changed configuration starts the pod again."),
                    "yibu/config-sha256": deployment.digest,
                },
            },
            "spec": self._pod(notes),
        }
        made = self._object(
            "apps/v1", "StatefulSet", deployment.name,
            spec={
                "serviceName": deployment.name,
                **notes.why(
                    "Each replica is a node with volumes and GPUs of its own, and the service divides\n"
                    "requests among them. Replicas of a model within a node are yibu.yaml's."
                ),
                "replicas": 1,
                **notes.why("Each downloads for itself: none waits for another to be ready."),
                "podManagementPolicy": "Parallel",
                "selector": {"matchLabels": self._select},
                "template": template,
                **notes.why(
                    "Claims outlive the StatefulSet, so models are not downloaded again. data: state,\n"
                    "logs, engines; models: the hubs' caches."
                ),
                "volumeClaimTemplates": [self._claim("data"), self._claim("models")],
            },
        )  # fmt: skip
        return notes.dump(made, top=self._first_steps())

    def _first_steps(self) -> str:
        deployment = self.deployment
        space = f" -n {self.cluster.namespace}" if self.cluster.namespace else ""
        wanted = [f"--from-literal={name}=…" for name in deployment.secrets]
        if deployment.key_file is not None:
            wanted.append(f"--from-file={_KEY_NAME}={deployment.key_file}")
        if self.cluster.service_monitor:
            note = tr("one of the keys, for Prometheus")
            wanted.append(f"--from-literal={_METRICS_KEY}=…   # {note}")
        return "\n".join(
            [
                tr(
                    "Written by `yibu export k8s`. Make the secret once, by hand or by your secrets operator:"
                ),
                f"  kubectl create secret generic {self._secret}{space} \\",
                *(f"    {word}{' ' * bool(word)}\\" for word in wanted[:-1]),
                *(f"    {word}" for word in wanted[-1:]),
                tr(
                    "Where needed, it has keys of these names too: {names}",
                    names=", ".join(self._optional),
                ),
            ]
        )

    def _claim(self, name: str) -> dict[str, Any]:
        spec: dict[str, Any] = {
            "accessModes": ["ReadWriteOnce"],
            "resources": {"requests": {"storage": self.cluster.storage}},
        }
        if self.cluster.storage_class:
            spec["storageClassName"] = self.cluster.storage_class
        return {"metadata": {"name": name, "labels": self._select}, "spec": spec}

    def _pod(self, notes: Notes) -> dict[str, Any]:
        deployment = self.deployment
        keys = deployment.key_file is not None
        volumes: list[dict[str, Any]] = [
            {"name": "config", "configMap": {"name": f"{deployment.name}-config"}},
            {"name": "tmp", "emptyDir": {}},
            {"name": "shm", "emptyDir": {"medium": "Memory"}},
        ]
        if keys:
            items = [{"key": _KEY_NAME, "path": _KEY_NAME}]
            volumes += [
                {"name": "keys", "emptyDir": {"medium": "Memory"}},
                {"name": "secret", "secret": {"secretName": self._secret, "items": items}},
            ]
        return {
            **notes.why("yibu does not speak to the cluster."),
            "automountServiceAccountToken": False,
            "enableServiceLinks": False,
            **notes.why("gateway.drain_timeout, the engines' own end, and preStop."),
            "terminationGracePeriodSeconds": deployment.stop_seconds + _BEFORE_STOP,
            "securityContext": {
                "runAsNonRoot": True,
                "runAsUser": USER,
                "runAsGroup": USER,
                **notes.why(
                    "The volumes are given to this group; only when they are not its own yet."
                ),
                "fsGroup": USER,
                "fsGroupChangePolicy": "OnRootMismatch",
                "seccompProfile": {"type": "RuntimeDefault"},
                **self._sysctls(notes),
            },
            **({"tolerations": [_GPU_TOLERATION]} if deployment.gpus else {}),
            **({"initContainers": [self._keys()]} if keys else {}),
            "containers": [self._container(notes)],
            "volumes": volumes,
        }

    def _sysctls(self, notes: Notes) -> dict[str, Any]:
        name = self.deployment.sysctl
        if name is None:
            return {}
        why = notes.why("gateway.funasr_port is below 1024, and the container's user is not root.")
        return {**why, "sysctls": [{"name": name, "value": "0"}]}

    def _keys(self) -> dict[str, Any]:
        """Secrets are mounted for a group, and yibu refuses keys that more than their owner may read."""
        return {
            "name": "keys",
            "image": self.deployment.image,
            "command": ["install", "-m", "0600", f"/secret/{_KEY_NAME}", f"{_KEY_FOLDER}/{_KEY_NAME}"],
            "securityContext": _RESTRICTED,
            "volumeMounts": [
                {"name": "secret", "mountPath": "/secret", "readOnly": True},
                {"name": "keys", "mountPath": _KEY_FOLDER},
            ],
        }  # fmt: skip

    def _container(self, notes: Notes) -> dict[str, Any]:
        deployment = self.deployment
        ports = [{"name": "http", "containerPort": deployment.inner_port}]
        if deployment.config.gateway.funasr_port:
            ports.append({"name": "funasr", "containerPort": deployment.config.gateway.funasr_port})
        mounts: list[dict[str, Any]] = [
            {"name": "data", "mountPath": DATA},
            {"name": "models", "mountPath": MODELS},
            {"name": "config", "mountPath": CONFIG_FOLDER, "readOnly": True},
            {"name": "tmp", "mountPath": "/tmp"},
            {"name": "shm", "mountPath": "/dev/shm"},
        ]
        if deployment.key_file is not None:
            mounts.append({"name": "keys", "mountPath": _KEY_FOLDER, "readOnly": True})
        alive = {"httpGet": {"path": "/healthz", "port": "http"}}
        return {
            "name": "yibu",
            **notes.why("The image of the Dockerfile that `yibu export compose` writes."),
            "image": deployment.image,
            "imagePullPolicy": "IfNotPresent",
            "ports": ports,
            "env": self._env(),
            **notes.why("The gateway listens before models are downloaded."),
            "startupProbe": {**alive, "periodSeconds": 2, "failureThreshold": 90},
            **notes.why("Takes requests once every model that is to be loaded answers."),
            "readinessProbe": {
                "httpGet": {"path": "/readyz", "port": "http"},
                "periodSeconds": 5,
                "timeoutSeconds": 5,
            },
            **notes.why("yibu restarts its engines itself; the pod, only if the gateway hangs."),
            "livenessProbe": {**alive, "periodSeconds": 15, "timeoutSeconds": 10, "failureThreshold": 4},
            **notes.why("Until the service has stopped sending requests here."),
            "lifecycle": {"preStop": {"exec": {"command": ["sleep", str(_BEFORE_STOP)]}}},
            **self._resources(notes),
            "securityContext": _RESTRICTED,
            "volumeMounts": mounts,
        }  # fmt: skip

    def _env(self) -> list[dict[str, Any]]:
        found: list[dict[str, Any]] = [
            {"name": "YIBU_PORT", "value": str(self.deployment.inner_port)}
        ]
        if self.deployment.key_file is not None:
            found.append({"name": "YIBU_API_KEY_FILE", "value": f"{_KEY_FOLDER}/{_KEY_NAME}"})
        for name in (*self.deployment.secrets, *self._optional):
            optional = {"optional": True} if name in self._optional else {}
            reference = {"name": self._secret, "key": name, **optional}
            found.append({"name": name, "valueFrom": {"secretKeyRef": reference}})
        return found

    def _resources(self, notes: Notes) -> dict[str, Any]:
        asked = {"cpu": self.cluster.cpu, "memory": self.cluster.memory}
        requests = {name: amount for name, amount in asked.items() if amount}
        limits: dict[str, Any] = {k: v for k, v in requests.items() if k == "memory"}
        if self.deployment.gpus:
            limits["nvidia.com/gpu"] = self.deployment.gpus
        if requests:
            limited = {"limits": limits} if limits else {}
            return {"resources": {"requests": requests, **limited}}
        said = tr(
            "Add what `yibu plan` says that the models need: export with --memory 16Gi --cpu 4."
        )
        return {**notes.why(said), "resources": {"limits": limits} if limits else {}}

    def service(self) -> str:
        gateway = self.deployment.config.gateway
        ports = [{"name": "http", "port": self.deployment.port, "targetPort": "http"}]
        if gateway.funasr_port:
            ports.append({"name": "funasr", "port": gateway.funasr_port, "targetPort": "funasr"})
        made = self._object(
            "v1", "Service", self.deployment.name,
            spec={"type": "ClusterIP", "selector": self._select, "ports": ports},
        )  # fmt: skip
        note = tr(
            "An ingress in front must not buffer answers, and must allow long ones:\n"
            'nginx.ingress.kubernetes.io/proxy-buffering: "off", proxy-read-timeout: "600",\n'
            "proxy-body-size: gateway.max_upload."
        )  # fmt: skip
        return Notes().dump(made, top=note)

    def disruption_budget(self) -> str:
        made = self._object(
            "policy/v1", "PodDisruptionBudget", self.deployment.name,
            spec={"maxUnavailable": 1, "selector": {"matchLabels": self._select}},
        )  # fmt: skip
        note = tr(
            "One pod at a time. With one replica a drain of its machine is not blocked: requests in\n"
            "flight get gateway.drain_timeout."
        )
        return Notes().dump(made, top=note)

    def network_policy(self) -> str:
        notes = Notes()
        ports: list[dict[str, Any]] = [{"port": "http"}]
        if self.deployment.config.gateway.funasr_port:
            ports.append({"port": "funasr"})
        internet = {"cidr": "0.0.0.0/0", "except": ["169.254.0.0/16"]}
        internet6 = {"cidr": "::/0", "except": ["fe80::/10", "fd00:ec2::254/128"]}
        spec = {
            "podSelector": {"matchLabels": self._select},
            "policyTypes": ["Ingress", "Egress"],
            **notes.why(
                "Pods of this namespace. An ingress controller's or Prometheus' namespace is added by:\n"
                "- namespaceSelector: {matchLabels: {kubernetes.io/metadata.name: ingress-nginx}}"
            ),
            "ingress": [{"from": [{"podSelector": {}}], "ports": ports}],
            **notes.why(
                "Hubs, package indexes and proxies; not the cloud's metadata service, which gives out\n"
                "credentials: models are other people's files."
            ),
            "egress": [
                {"to": [{"ipBlock": internet}, {"ipBlock": internet6}]},
                {
                    "to": [{"namespaceSelector": {}}],
                    "ports": [{"protocol": "UDP", "port": 53}, {"protocol": "TCP", "port": 53}],
                },
            ],
        }
        name = self.deployment.name
        return notes.dump(self._object("networking.k8s.io/v1", "NetworkPolicy", name, spec=spec))

    def service_monitor(self) -> str:
        endpoint = {
            "port": "http",
            "path": "/metrics",
            "interval": "15s",
            "scrapeTimeout": "10s",
            "authorization": {"credentials": {"name": self._secret, "key": _METRICS_KEY}},
        }
        made = self._object(
            "monitoring.coreos.com/v1", "ServiceMonitor", self.deployment.name,
            spec={"selector": {"matchLabels": self._select}, "endpoints": [endpoint]},
        )  # fmt: skip
        return Notes().dump(
            made, top=tr("For the Prometheus operator, whose types have to be installed.")
        )

    def kustomization(self, resources: tuple[str, ...]) -> str:
        made: dict[str, Any] = {
            "apiVersion": "kustomize.config.k8s.io/v1beta1",
            "kind": "Kustomization",
            **({"namespace": self.cluster.namespace} if self.cluster.namespace else {}),
            "resources": list(resources),
        }
        note = tr(
            "kubectl apply -k .      Changes of yours belong into an overlay that names this folder:\n"
            "resources: [../k8s]; patches, images and namespace there survive the next export."
        )
        return Notes().dump(made, top=note)


_BEFORE_STOP = 5
"""Seconds until a cluster's proxies stop sending to a pod that ends."""
_GPU_TOLERATION = {"key": "nvidia.com/gpu", "operator": "Exists", "effect": "NoSchedule"}
_RESTRICTED = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}
