"""Where libvirt's storage pools are found unless somebody says otherwise.

Apart from `libvirt_storage`, so that settings can be read without loading what talks to libvirt.
"""

from __future__ import annotations

from typing import Final

#: The host's own pools, in whichever daemon of libvirt has them.
DEFAULT_URI: Final = "storage:///system"
