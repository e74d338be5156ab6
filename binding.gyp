{
  "targets": [
    {
      # One librpal for the addon and the shim: its state belongs to the process.
      "target_name": "librpal",
      "type": "none",
      "actions": [
        {
          "action_name": "make",
          "inputs": [
            "<!@(find native/librpal -type f)"
          ],
          "outputs": [
            "<(PRODUCT_DIR)/librpal/librpal.so.1"
          ],
          "action": [
            "make", "-C", "native/librpal", "BUILD=<(module_root_dir)/build/$(BUILDTYPE)/librpal"
          ]
        }
      ]
    },
    {
      "target_name": "rpal_preload",
      "type": "shared_library",
      "product_dir": "<(PRODUCT_DIR)",
      "dependencies": ["librpal"],
      "sources": ["native/preload/epoll.c"],
      "include_dirs": ["native/librpal/include"],
      "cflags": ["-std=gnu11", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra"],
      "libraries": ["<(module_root_dir)/build/$(BUILDTYPE)/librpal/librpal.so.1"],
      "ldflags": ["-Wl,-rpath,'$$ORIGIN/librpal'"]
    },
    {
      "target_name": "rpal_run",
      "type": "executable",
      "dependencies": ["librpal"],
      "sources": ["native/launcher/rpal_run.c"],
      "include_dirs": ["native/librpal/include"],
      "cflags": ["-std=gnu11", "-O2", "-Wall", "-Wextra"],
      "libraries": ["<(module_root_dir)/build/$(BUILDTYPE)/librpal/librpal.a"]
    },
    {
      "target_name": "rpal",
      "dependencies": ["librpal"],
      "sources": [
        "native/addon/addon.cc",
        "native/addon/environment.cc",
        "native/addon/low_level.cc",
        "native/addon/peers.cc",
        "native/addon/pull.cc",
        "native/addon/receiver.cc",
        "native/addon/sender.cc",
        "native/addon/socket.cc"
      ],
      "include_dirs": [
        "<!(node -p \"require('node-addon-api').include_dir\")",
        "native/librpal/include"
      ],
      "defines": ["NAPI_VERSION=8", "NODE_ADDON_API_DISABLE_DEPRECATED", "NODE_ADDON_API_DISABLE_CPP_EXCEPTIONS"],
      "cflags_cc": ["-std=c++20", "-O2", "-fvisibility=hidden", "-Wall", "-Wextra", "-Wno-unused-parameter"],
      "libraries": ["<(module_root_dir)/build/$(BUILDTYPE)/librpal/librpal.so.1"],
      "ldflags": ["-Wl,-rpath,'$$ORIGIN/librpal'"]
    }
  ]
}
