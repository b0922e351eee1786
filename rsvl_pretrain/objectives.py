"""A model and its losses: batch in, named losses out. The trainer adds them up and asks nothing else."""

from torch import Tensor, nn

from rsvl_data.loader import Batch
from rsvl_pretrain.distributed import gather_rows, rank
from rsvl_pretrain.losses import clip_loss, same_text
from rsvl_pretrain.model import DualEncoder


class ClipObjective(nn.Module):
    """The CLIP loss (arXiv:2103.00020) over the global batch.

    duplicates_are_negatives   True is what CLIP and every released RS recipe does: two images with the same caption push each
                               other's caption away. False leaves such pairs out of the denominators, which small caption sets
                               need: UCM-Captions repeats a sentence 3.9 times on average.
    """

    def __init__(self, encoder: DualEncoder, duplicates_are_negatives: bool = True):
        super().__init__()
        self.encoder, self.duplicates_are_negatives = encoder, duplicates_are_negatives

    def forward(self, batch: Batch) -> dict[str, Tensor]:
        tokens = batch.tokens.to(self.encoder.device)
        image = self.encoder.encode_image(batch.images).float()
        text = self.encoder.encode_tokens(tokens).float()
        excluded = None if self.duplicates_are_negatives else same_text(tokens, gather_rows(tokens))
        loss = clip_loss(
            image,
            text,
            self.encoder.logit_scale,
            all_image=gather_rows(image),
            all_text=gather_rows(text),
            offset=rank() * len(image),
            excluded=excluded,
        )
        return {"contrastive": loss}
