"""What planner knows of hardware: loading, names and units of the hardware catalog."""

from planner.catalog.hardware import Accelerator, Fabric, Node, Price, ScaleUp
from planner.catalog.load import HardwareCatalog, load_hardware

__all__ = ["Accelerator", "Fabric", "HardwareCatalog", "Node", "Price", "ScaleUp", "load_hardware"]
