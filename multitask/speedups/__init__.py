"""What makes training faster and changes no result: modules, a corpus on the device, CUDA graphs."""
