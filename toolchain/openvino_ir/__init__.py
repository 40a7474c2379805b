"""What OpenVINO needs beside its own converter: see `toolchain.backends.openvino`."""
