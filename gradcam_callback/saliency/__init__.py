"""Automatic masks: a small saliency network marks the object of a photograph, whatever its class.

`SaliencyNetwork` makes a `Proposal` of a photograph, and `propose_in_box` of the object in a box. A proposal that looks
doubtful says why.
"""

from gradcam_callback.saliency.boxes import Box, enlarge_box, propose_in_box
from gradcam_callback.saliency.network import SaliencyNetwork
from gradcam_callback.saliency.proposals import Proposal, doubt_size, judge_proposal

__all__ = ["Box", "Proposal", "SaliencyNetwork", "doubt_size", "enlarge_box", "judge_proposal", "propose_in_box"]
