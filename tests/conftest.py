"""For all tests."""

import os

# Tests speak gRPC in a process that also starts others under another user, for which Python has to fork. gRPC's own
# handlers abort such a child now and then, and are read once, when it is imported.
os.environ["GRPC_ENABLE_FORK_SUPPORT"] = "0"
