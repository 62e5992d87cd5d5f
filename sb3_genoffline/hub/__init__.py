"""The Hugging Face Hub: load ready agents in one line, without running anybody's code, and publish them."""

from sb3_genoffline.hub.errors import HubError
from sb3_genoffline.hub.loading import download_from_hub, load_from_hub
from sb3_genoffline.hub.publishing import push_folder, push_to_hub, write_agent_folder

__all__ = ["HubError", "download_from_hub", "load_from_hub", "push_folder", "push_to_hub", "write_agent_folder"]
