"""Every bound on a queue, frame, file, cache or wait: one line each, with its unit and the reason for its size."""

# --- settings and files of the user
MAX_CONFIG_BYTES = 64 * 1024  # a settings file is a dozen lines; more is some other file
MAX_CHAT_FILE_BYTES = 16 * 1024 * 1024  # /load: text of the longest context we run, with room
MAX_PIPED_PROMPT_BYTES = 4 * 1024 * 1024  # `swarm run -`: more text than any context holds

# --- the model store
CONNECT_TIMEOUT_S = 5.0  # asking a download source whether it answers: a person is waiting for the next one
MIN_FREE_DISK_BYTES = 64 * 1024 * 1024  # kept free by a download: a full disk breaks more than Swarm
