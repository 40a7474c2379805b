"""What XNNPACK needs beside ExecuTorch's own backend: see `toolchain.backends.xnnpack`."""
