"""The k nearest rows of a gallery, found exactly by FAISS."""

import faiss
import torch
from jaxtyping import Float, Int
from torch import Tensor

_BLOCK_SCORES = 2**25  # 128 MiB as float32


def nearest(
    query: Float[Tensor, "q d"], gallery: Float[Tensor, "n d"], k: int
) -> tuple[Float[Tensor, "q k"], Int[Tensor, "q k"]]:
    """Inner products, falling, and gallery indices, on the queries' device; which of equal ones stands first is left open.

    Queries on a GPU are searched there: by FAISS where its build knows GPUs, else by a product a block. Never more than a
    block of scores is held. Raises ValueError for a k that is not between 1 and the size of the gallery.
    """
    if not 1 <= k <= len(gallery):
        raise ValueError(f"k must lie between 1 and the {len(gallery)} rows of the gallery; got {k}")
    on_gpu = query.device.type == "cuda"
    if on_gpu and not getattr(faiss, "get_num_gpus", lambda: 0)():
        return _nearest_by_product(query, gallery, k)
    queries, rows = (each.detach().float().cpu().numpy() for each in (query, gallery))
    if on_gpu:
        scores, index = faiss.knn_gpu(faiss.StandardGpuResources(), queries, rows, k, metric=faiss.METRIC_INNER_PRODUCT)
    else:
        scores, index = faiss.knn(queries, rows, k, metric=faiss.METRIC_INNER_PRODUCT)
    return torch.from_numpy(scores).to(query.device), torch.from_numpy(index).to(query.device)


def _nearest_by_product(query: Tensor, gallery: Tensor, k: int) -> tuple[Tensor, Tensor]:
    blocks = query.split(max(1, _BLOCK_SCORES // len(gallery)))
    scores, index = zip(*((block @ gallery.T).topk(k, dim=1) for block in blocks), strict=True)
    return torch.cat(scores), torch.cat(index)
