"""Automatic masks: a small saliency network marks the object of a photograph, whatever its class.

`SaliencyNetwork` makes a `Proposal` of a photograph. A proposal that looks doubtful says why.
"""

from gradcam_callback.saliency.network import SaliencyNetwork
from gradcam_callback.saliency.proposals import Proposal, doubt_size, doubt_sureness, judge_proposal

__all__ = ["Proposal", "SaliencyNetwork", "doubt_size", "doubt_sureness", "judge_proposal"]
