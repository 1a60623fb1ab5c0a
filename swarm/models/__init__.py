"""Declarations of model families: GGUF metadata in, a `ModelSpec` that any engine can run out."""

from swarm.models.registry import FAMILIES as FAMILIES
from swarm.models.registry import spec_from_gguf as spec_from_gguf
from swarm.models.sizes import ModelSizes as ModelSizes
from swarm.models.sizes import kv_bytes_per_token as kv_bytes_per_token
from swarm.models.sizes import kv_kinds as kv_kinds
from swarm.models.sizes import model_sizes as model_sizes
from swarm.models.spec import LayerSpec as LayerSpec
from swarm.models.spec import ModelSpec as ModelSpec
from swarm.models.spec import MoeSpec as MoeSpec
from swarm.models.spec import Role as Role
from swarm.models.spec import RopeScaling as RopeScaling
from swarm.models.spec import RopeSpec as RopeSpec
from swarm.models.spec import TensorRef as TensorRef
from swarm.models.spec import tensors_needed as tensors_needed
