import torch
import torch.nn.functional as F

from rsvl_pretrain.image_tower import encode_image_of_any_size
from rsvl_pretrain.model import DualEncoder
from rsvl_pretrain.view_encoding import Views, encode_views


def test_small_crops_are_embedded_with_and_without_their_patches():
    torch.manual_seed(0)
    encoder = DualEncoder.load("rsvl-tiny").eval()
    crops = torch.randint(0, 256, (3, 3, 32, 32), dtype=torch.uint8)
    expected = F.normalize(encode_image_of_any_size(encoder.model.visual, encoder.preprocess.normalize(crops)), dim=-1)
    for patches in (False, True):
        views = {"crops": Views(crops, patches=patches)}
        found = encode_views(encoder.model, encoder.preprocess, views, "segearth", encoder.device)["crops"]
        assert found.image is not None
        torch.testing.assert_close(found.image, expected, rtol=1e-5, atol=1e-6)
