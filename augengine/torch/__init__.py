from augengine.torch.as_torchio import lesion_sampler
from augengine.torch.dataset import ShardDataset
from augengine.torch.sampler import WindowSampler
from augengine.torch.stream import ShardStream

__all__ = ["ShardDataset", "ShardStream", "WindowSampler", "lesion_sampler"]
