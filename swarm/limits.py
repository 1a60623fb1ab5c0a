"""Every bound on a queue, frame, file, cache or wait: one line each, with its unit and the reason for its size."""

# --- settings and files of the user
MAX_CONFIG_BYTES = 64 * 1024  # a settings file is a dozen lines; more is some other file
MAX_CHAT_FILE_BYTES = 16 * 1024 * 1024  # /load: text of the longest context we run, with room
MAX_PIPED_PROMPT_BYTES = 4 * 1024 * 1024  # `swarm run -`: more text than any context holds

MAX_TOKEN_FILE_BYTES = 4096  # the hub's token is a word

# --- what is shown
MAX_SHOWN_CHARS = 500  # of somebody else's words in a message of ours, on one line
MAX_SHOWN_NAME_CHARS = 120  # of a name in a file, or of what a library says of it

# --- the model store
CONNECT_TIMEOUT_S = 5.0  # asking a download source whether it answers: a person is waiting for the next one
MIN_FREE_DISK_BYTES = 64 * 1024 * 1024  # kept free by a download: a full disk breaks more than Swarm

# --- models from the hub and the web
READ_TIMEOUT_S = 30.0  # without a byte of a reply that has begun; a new request takes over
MAX_REDIRECTS = 5  # of one request
MAX_HUB_REPLY_BYTES = 32 * 1024 * 1024  # the list of a repository: 1,000 files take 400 kB
MAX_HUB_PAGES = 100  # of such a list
MAX_REFUSAL_BYTES = 4096  # of a refusal's body that is read for its reason
MAX_RATE_WAIT_S = 300.0  # the hub counts requests in windows of five minutes
MAX_TRIES = 5  # of a request that was cut or answered with "later", 1, 2, 4 ... seconds apart
PIECE_BYTES = 1024 * 1024  # of a file on its way: kept on its own, so a kill -9 loses as much for each stream
RUN_BYTES = 64 * 1024 * 1024  # asked in one request; the hub refuses more than 50 GB, and counts requests
DOWNLOAD_STREAMS = 3  # at once: one connection across an ocean does not fill a fast line
DOWNLOAD_PATIENCE_S = 600.0  # without a byte, once some have come: a router that restarts is back within this
FIRST_HEADER_BYTES = 4 * 1024 * 1024  # of a file whose header is wanted; grows until it is whole
PART_HEADER_BYTES = 256 * 1024  # the same of the second and later files of a split model: no vocabulary
MAX_JOURNAL_HEAD_BYTES = 64 * 1024  # the first line of what is noted of a file on its way
UNIT_BYTES = 8 * 1024 * 1024  # of a file that a device brings at a time, when several bring a model together
GATHERING_KEPT_S = 14 * 86400.0  # of a model that was begun and not gone on with: a fortnight away from home
MAX_IMPORT_DEPTH = 4  # folders below the one that is imported: a stick has models/publisher/repository
MAX_ORIGIN_BYTES = 64 * 1024  # the record of where a file came from

# --- files that are made (swarm/convert)
CONVERT_PIECE_BYTES = 8 * 1024 * 1024  # of a tensor as floats, in work on one core: it stays near the processor
MAX_CONFIG_JSON_BYTES = 4 * 1024 * 1024  # config.json and templates: some KB, with lists of layers some hundred
MAX_TOKENIZER_BYTES = 256 * 1024 * 1024  # tokenizer.json: 20 MB of a vocabulary of 150,000, 33 of the largest
MAX_SAFETENSORS_HEADER_BYTES = 100_000_000  # which the format itself allows
CONVERT_SYNC_BYTES = 256 * 1024 * 1024  # written between two waits for the disk: what a power cut may cost

# --- packed weights kept on disk
MIN_PACKED_BYTES = 1024 * 1024 * 1024  # smaller models are packed in a second or two
MIN_PACKED_FREE_BYTES = 5 * 1024 * 1024 * 1024  # left free on the disk beside them
MAX_PACKED_FILES = 4  # models; the one that was used longest ago goes

# --- bytes at rest
DIGEST_PIECE_BYTES = 4 * 1024 * 1024  # of kept weights, hashed at once: a millisecond or two
SCRUB_PAUSE_S = 1.0  # between two pieces of what is mapped and in use: 6 GiB in half an hour, a thousandth of a core
MAX_NOTED_FILES = 256  # model files of which digests are noted; those that were noted longest ago go
MAX_DIGESTS_BYTES = 8 * 1024 * 1024  # what is noted of a model file: 100 bytes for each of its tensors

# --- the wire (swarm/wire): checked before anything is allocated
MAX_HEADER_BYTES = 64 * 1024  # one message's msgpack; the largest, a placement of 256 shards, is a third of it
MAX_FRAMES = 4  # raw frames of a message; today at most one is used
MAX_HAVE_BYTES = 128 * 1024  # one bit a chunk: MAX_MANIFEST_CHUNKS of them
MAX_FAST_FRAME_BYTES = 16 * 1024 * 1024  # a prefill batch of 512 tokens x 8192 wide in f32
MAX_BULK_FRAME_BYTES = 4 * 1024 * 1024  # a piece of a chunk: 40 ms on gigabit, so that a cut loses little
MAX_NAME_BYTES = 64  # a device's name
MAX_TEXT_BYTES = 512  # a reason or an error in one line
MAX_MACHINE_BYTES = 16  # the name of a processor or an instruction set
MAX_SOFTWARE_BYTES = 32  # a version of Swarm
MAX_HOST_BYTES = 253  # a DNS name; addresses with a zone are shorter
MAX_ADDRESSES = 16  # of one device: interfaces x (IPv4, IPv6, link-local)
MAX_PEERS = 256  # devices in one swarm
MAX_LAYERS = 1024  # layers of a model; the largest known has 126
MAX_SHARDS = 256  # shards of one placement
MAX_EXPERT_RANGES = 64  # runs of experts that one device holds
MAX_END_IDS = 64  # tokens that end an answer
MAX_LOGIT_BIASES = 1024  # of one answer: OpenAI allows 300
MAX_TOLD_TOKENS = 21  # whose log probabilities travel with a token: itself, and OpenAI's most beside it
MAX_LOGIT_BIAS = 100.0  # more is certain, or never
MIN_LOGPROB = -1e30  # of a token that the model rules out
MAX_READ_VALUES = 256  # ids and texts of messages that are kept as they were read; a grammar is the largest
MAX_GRAMMAR_BYTES = 40 * 1024  # that an answer must follow: it travels in one header with everything else
MAX_BATCH_TOKENS = 512  # of one prefill message: 16 MiB at 8192 values
MAX_MODELS = 64  # models that one device announces
MAX_TENSOR_DIMS = 4  # of an activation
MAX_TOKEN_ID = 2**31 - 1  # ids travel as int32
MAX_POSITION = 2**31 - 1  # positions travel with them
MAX_EPOCH = 2**53  # never reached: one a second for ever
MAX_SESSIONS_SHOWN = 64  # sessions that a status lists
MAX_VERSION = 65535  # major or minor of a protocol
MAX_TEMPERATURE = 100.0  # more is a coin
MAX_PENALTY = 100.0  # of a repeated token; more rules it out as well
MAX_PORT = 65535  # of TCP
MAX_THREADS = 1024  # that a device computes with
MAX_COUNT = 2**31 - 1  # of anything that is counted, and has no bound of its own
MAX_BYTE_COUNT = 2**53  # as many as a JSON number says exactly
MAX_RATE = 1e18  # bytes or operations a second
MAX_SECONDS = 1e9  # thirty years
MAX_CELSIUS = 200.0  # of a processor that is still there
MAX_MICROS = 2**63 - 1  # of any clock
MAX_UNKNOWN_TYPES = 64  # distinct unknown message types counted by name; the rest are counted together

# --- links between devices (swarm/net)
HANDSHAKE_TIMEOUT_S = 5.0  # TCP connect to proven peer; a slow Pi under load needs half a second
HEARTBEAT_INTERVAL_S = 0.5  # four chances before a device counts as lost
IDLE_HEARTBEAT_S = (
    4.0  # while nobody in the swarm has anything to do: four devices then cost each other 5 wake-ups a second
)
MAX_HEARTBEAT_S = 8.0  # that a device may take between two; four of them are its silence
IDLE_AFTER_S = 20.0  # without an answer, a fetch or a plan anywhere, a swarm is idle
QUICK_HEARTBEAT_S = 0.2  # of a device for which others wait within each layer
PEER_SILENCE_S = 2.0  # then a device is lost; an answer must notice within 3 s
KNOCK_S = 0.8  # whether anything listens where a connection closed; after DOWN_GRACE_S the device is lost anyway
REDIAL_FIRST_S = 0.25  # first retry of a lost device; doubles up to the next
ADDRESS_STAGGER_S = 0.3  # the next address of a device is tried beside the one before after so long
REDIAL_MAX_S = 5.0  # a device that comes back is found within this
DIAL_TURN_S = 0.7  # the device with the larger id waits so long for the other one's call
GARBAGE_BACKOFF_S = 30.0  # a device that sent garbage is not heard for so long
GARBAGE_BACKOFF_MAX_S = 600.0  # the back-off doubles up to this
RTT_SAMPLES = 16  # heartbeats whose best round trip counts: of the last eight seconds
FORGET_ADDRESS_S = 600.0  # addresses of a device that nobody announced for so long are dropped
MAX_BLOCKED_KEYS = 1024  # remembered back-offs; the oldest goes first
MAX_TOLD_ADDRESSES = 32  # that one device may tell us of, and that nobody else has proven
MAX_TOLD_CALLS = 10  # a minute, to addresses that one device told of
MAX_ALL_TOLD_CALLS = 30  # a minute, to all such addresses
MAX_TOLD_FAILURES = 3  # calls to such an address; then it is not called again for FORGET_ADDRESS_S
MAX_DATA_PER_S = 5000.0  # messages of answers and chunks that one device may send; the fastest need a fifth
MAX_DATA_AT_ONCE = 20_000.0
MAX_TOLD_PER_S = 100.0  # other messages of one device: probes of 16 answers are 32 a second
MAX_TOLD_AT_ONCE = 300.0  # all devices of a large home come back at once
FAST_QUEUE_MESSAGES = 256  # per device: activations and heartbeats; a longer queue means a frozen peer
SEND_RETRY_S = 0.002  # a full link is tried again; what libzmq holds lasts longer at gigabit
BULK_QUEUE_MESSAGES = 8  # per device: 32 MiB of chunk pieces
MAX_LINKS_PER_LANE = 3  # to one device: both may call at once, and call again before the old link is seen dead
WARNING_INTERVAL_S = 30.0  # the same trouble with the same device is told again after so long
MAX_INBOUND_EVENTS = 1024  # not yet taken by the node; then the sockets are not read, and TCP slows the senders
MAX_INBOUND_BYTES = 128 * 1024 * 1024  # the same, in bytes of raw frames

# --- stages: devices that share layers (swarm/net/slices.py)
MAX_STAGE_MEMBERS = 16  # each sends to all others: with more, waiting costs more than sharing gains
REHEARSAL_S = 4.0  # until two devices are connected for one, and in which it should be over, even by Wi-Fi
REHEARSE_AFTER_S = 2.5  # a device came: by then its throughput was measured
REHEARSE_EVERY_S = 900.0  # somebody may have moved a cable
REHEARSALS_KEPT = 3  # with a device; the quickest of them counts
STAGE_CONNECT_S = 15.0  # until all members are connected, while some still load their weights
STAGE_DIAL_S = 1.0  # one call to a member of the same home
STAGE_REDIAL_S = 0.1  # a member that does not listen yet is called again after so long
STAGE_PROOF_S = 1.0  # for a caller to prove that it belongs to the stage: both sides answer at once
MAX_STAGE_CALLERS = 32  # that are proving it at the same time
STAGE_CEILING_S = 10.0  # without a byte of a member: heartbeats have told of a dead one long before
MAX_GATHERED_BYTES = 16 * 1024 * 1024  # of one member after a step: all logits of 25 answers at 151,552 ids
STAGE_BUFFER_BYTES = 1024 * 1024  # of a socket, each way: a frame of a token fits, so nobody waits to send it

# --- discovery
ANNOUNCE_INTERVAL_S = 15.0  # browse and announce again: an old browser misses what started during a cut
IDLE_ANNOUNCE_INTERVAL_S = 90.0  # in an idle swarm: each announcement wakes every device of the house some ten times
IDLE_INTERFACE_POLL_S = 5.0  # the same in an idle swarm
INTERFACE_POLL_S = 2.0  # a new cable or Wi-Fi is used within this
MAX_DISCOVERED = 1024  # services remembered; a hostile LAN can announce without end

# --- joining
INVITATION_S = 600.0  # a person walks to the other device and types a code
MAX_WRONG_GUESSES = 3  # of 10^6 codes
MAX_PAIRING_BYTES = 1024  # one message of the pairing dialogue
PAIRING_TIMEOUT_S = 10.0  # one dialogue; both sides answer at once
MAX_PAIRING_DIALOGUES = 64  # at the same time; the next one ends one of the host that has most
PAIRING_STEP_S = 3.0  # for one message of a dialogue: the joiner computes for 0.1 s, and nobody types

# --- GGUF files (more than any real file has; a hostile header must cost neither memory nor minutes)
MAX_SPLIT_FILES = 256  # real models are split into at most about fifty
MAX_GGUF_HEADER_BYTES = 256 * 1024 * 1024  # metadata and tensor table: 6-25 MB for a vocabulary of 150,000
MAX_GGUF_TENSORS = 65_536  # GLM-4.5 has 1,760; files with one tensor an expert have about 20,000
MAX_GGUF_METADATA = 65_536  # keys; real files have about fifty
MAX_GGUF_NAME_BYTES = 1024  # of a key or tensor; ggml allows 64 for tensors
MAX_GGUF_STRING_BYTES = 64 * 1024 * 1024  # a tokenizer.json in a string is 20 MB
MAX_GGUF_ARRAY_ITEMS = 4 * 1024 * 1024  # merges of the largest vocabularies: 514,000
MAX_TENSOR_DIMENSION = 2**31 - 1  # the kernels count rows and columns in 32 bits

# --- text (swarm/text): a tokenizer or chat template comes with a model file and may be broken or hostile
MAX_VOCABULARY = 1_000_000  # tokens; the largest known vocabularies have 262,144
MAX_TOKEN_CHARS = 4096  # of one token; the longest real ones, runs of spaces, have some hundred
MAX_TEMPLATE_CHARS = 256 * 1024  # source of a chat template; the longest known have 20,000
MAX_GRAMMAR_STATES = 16  # that a device keeps between tokens, megabytes each; one that is lost is made again
MAX_PROMPT_CHARS = 8 * 1024 * 1024  # what a template may write: beyond any context that we run
MAX_TEMPLATE_STEPS = 20_000_000  # instructions of one rendering; 1,000 messages with tools take 200,000
MAX_TEMPLATE_BYTES = 64 * 1024 * 1024  # beside what the conversation itself takes
MAX_TEMPLATE_S = 5.0  # wall time of one rendering; real ones take milliseconds, a Pi is ten times slower

# --- deciding (swarm/cluster)
SUSPECT_S = 1.0  # of silence: two heartbeats missed; no new work is placed there
QUICK_SILENCE_S = 1.2  # of a device that beats quickly: our own delay of SUSPECT_S, and a beat, are not yet its silence
STALL_FACTOR = 3.0  # times the longest pause that was seen of it is silence, too, up to PEER_SILENCE_S
STALLS_KEPT = 64  # pauses: of the last thirteen seconds
DOWN_GRACE_S = 1.0  # after a link broke: a cable bump reconnects within this, a dead device does not
CLONE_S = 10.0  # two runs of one device id heard within this: a cloned device, not a restart
FLAP_WINDOW_S = 120.0  # a device lost MAX_FLAPS times within this is used only where nothing fits without it
MAX_FLAPS = 3  # losses: one is an accident, two a bad day
EXCLUDE_FIRST_S = 15.0  # a device that did not do its part is left out for so long
EXCLUDE_GROWTH = 4  # and so many times longer each time
EXCLUDE_MAX_S = 3600.0  # up to this
DOUBTED_TOKENS = 8  # of an answer, computed again when a device that worked on it was left out: a second or two
FIRST_CHECK_TOKENS = 8  # of an answer are there when it is first asked whether a spot check is due
CHECK_EVERY_TOKENS = 128  # and then after so many more, and at its end
MOST_CHECKED_TOKENS = 256  # are compared: all since the last check, and no answer waits long for so many
CHECK_SHARE = 8  # one look in so many begins a check, of devices that have passed as many
CHECK_ROWS = 8  # of logits in memory at once
MAX_CHECK_TOKENS = 2048  # of an answer and its prompt: an older laptop reads them in some minutes, beside all else
CHECK_RETRY_S = 60.0  # after a check that could not be made
MAX_SUSPICIONS = 16  # sets of devices of which one falsifies; the oldest is forgotten
FORGIVE_S = 3600.0  # without a failure: one of them is forgiven
FORGIVE_TOKENS = 256  # of answers that it took part in: the same; one that fails every few tokens never gets there
SHORT_MEMORY_S = 30.0  # a device that had less memory than it said is asked for less for so long
MAX_SLOWNESS = 1e4  # times slower than it said; beyond, a device is not used anyway
MAX_ACCOUNTS = 2 * MAX_PEERS  # accounts of devices; the one that may take part soonest goes
ADVERTISE_S = 2.0  # measured figures and reachable peers are told again, and at once when devices come or go
OFFER_TIMEOUT_S = 2.0  # an answer to a placement offer is a few comparisons; later means the device hangs
OFFER_MAX_S = 10.0  # but one that must get to know the model first, and is needed, has so long
OFFER_HOLD_S = 5.0  # memory stays promised to an offer for so long, when no commit comes
OFFER_RETRY_S = 0.5  # an offer without an answer is sent again
CLAIM_GRACE_S = 3.0  # a loaded placement without an answer makes way for others after this: its author is opening one
LOAD_PATIENCE_S = 5.0  # a member that is not ready after this is left out, where an answer can begin without it
LOAD_MAX_S = 3600.0  # and after this in any case: a Pi's share of a large model through bad Wi-Fi
REPLAN_S = 1.0  # between attempts to place: what refused needs time to change; doubles up to the next
REPLAN_MAX_S = 5.0  # an answer that waits for busy devices goes on within this
OPEN_RETRY_S = 0.5  # a session opening without an answer is sent again
OPEN_TIMEOUT_S = 4.0  # a stage that is alive but answers neither opening nor probe for so long is planned around
PROBE_AFTER_S = 1.0  # without progress: ask the stages whether they are slow or a message was lost
PROBE_EVERY_S = 0.5  # and again; two answers without change or work mean: lost
PATIENCE_S = 6.0  # whatever an answer waits for, beyond what was planned: then it goes on without, where it can
JUDGE_EVERY_S = 2.0  # and where it cannot, it is looked at again after so long, then half as long as it has waited
PATIENCE_SLACK = 4.0  # times as long as was planned may a step take
PACE_TOKENS = 4  # over so many the pace of an answer is taken
PACE_S = 3.0  # or over so long
PACES_KEPT = 4  # of a device; the best of them counts, for whatever disturbs an answer makes it slower
SLOW_FACTOR = 8.0  # times slower than planned is not what was promised
SLOW_TOKEN_S = 0.3  # and what is faster than this needs no other device
QUICK_PROBE_S = 0.1  # an answer that is too slow is looked into so soon after each token
MAX_REOPENINGS = 6  # of a session without progress: then it is not the network
MAX_QUICK_PLANS = 4  # placements of a model without progress; then it waits between them
STUCK_S = 180.0  # a stage that is busy with one step for so long hangs; a prefill batch on a Pi 4 takes 90
MAX_STEP_FAILURES = 3  # of one session without a token between; another device would not help
PARK_S = 1800.0  # an answer waits so long for a device to come back
MAX_ACTIVE_SESSIONS = 16  # answers of one entry node at the same time; more wait in a queue
MAX_WAITING_SESSIONS = 32  # in that queue; the next one is told when to come again
KEPT_WAITING_SESSIONS = 8  # beside them, for those who ask and have nothing in the queue
PLACE_HELD_S = 1.0  # for an answer that asks for more memory: its reader's event loop is away for no longer
ANSWERS_TIMED = 32  # of the last answers, whose time tells when to come again
RETRY_GUESS_S = 2.0  # before any answer has ended
MAX_RETRY_S = 600.0  # that anybody is told to wait
MAX_KEPT_SESSIONS = 32  # finished answers whose KV may be reused for the next turn, per entry node
CONTENDED_KV_S = 4.0  # one of another entry node makes way for an answer of this device after so long
CLOSE_AGAIN_S = (1.0, 4.0, 16.0)  # after its end, an answer's closing is told again: it may have been lost
IDLE_KV_S = 60.0  # an open session that stands still for so long counts as over: its closing may be lost
MAX_STAGE_MEMBERS = 16  # devices that compute each layer together: with more, a token waits longer than it gains
STAGE_STEP_AGAIN_S = 0.5  # a step of a stage that is not done is told its members again, then after twice as long
NAMED_S = 120.0  # in which a device that names a second one to have been missing in a step counts, too
LED_BELIEVED_S = 30.0  # that a device computes with others which somebody else leads; then it is asked again
MAX_STAGE_STEPS = 4  # of one leader, waiting at a member: it tells the next one when the last is done
MAX_STAGE_SESSIONS = 256  # with KV on one device, from all entry nodes; memory runs out first
MAX_SESSION_JOBS = 96  # steps of one session waiting on one stage: MAX_PREFILL_WINDOW batches, in small pieces
MAX_PREFILL_WINDOW = 8  # prefill batchs on their way at once: enough for the stages of a home
MAX_SESSION_WAITING_TOKENS = 12 * 512  # in those steps: the window, and what a stage before has on its way
PREFILL_PATIENCE_S = 0.25  # a prefill batch that waited so long goes before decode steps of other sessions
PAUSE_S = 0.2  # that a piece of a prompt may take while others decode: each of their tokens waits for one at most
MIN_PIECE_TOKENS = 16  # of a prompt: smaller pieces cost as much as this, for the weights are read once for each
MAX_STEP_SESSIONS = 16  # whose rows share one step of a stage
ROW_COST_STEPS = 256  # steps after which another number of sessions together is tried again
ROW_COSTS_NEEDED = 3  # steps of so many sessions, before they are compared
ROW_COSTS_KEPT = 16  # of which the fastest counts
ROW_COST_STAGES = 8  # ranges of layers whose costs are remembered
MARK_TOKENS = 64  # of a conversation, that a mark names: keys and values on disk begin to be of use with so many
MARK_BYTES = 16  # that nobody finds a second text for
OWNER_BYTES = 32
MAX_MARKS = 256  # of one conversation: 16,384 tokens of it are found again; they travel in one header with a grammar
MIN_KEPT_TOKENS = 128  # of keys and values that are worth a file
MAX_KEPT_HEADER_BYTES = 128 * 1024  # of such a file: the ids, and whose they are
MAX_KEPT_WAITING_BYTES = 256 * 1024 * 1024  # of memory that is given up only when it is on the disk; more is not kept
KEPT_READ_S = 2.0  # that is read for a question: what comes later is computed
KEPT_PATIENCE_S = 3.0  # and for the worker to take it, beside its steps; entry nodes wait for OPEN_TIMEOUT_S
KEPT_END_S = 8.0  # that a node which ends writes for: service managers and commands wait for 15 and more
KEPT_GROWTH = 8  # a conversation that grew by less than an eighth of its file gets no new one
KEPT_REST_S = 60.0  # that a conversation rests in memory, before it is written as well: its reader may be typing
KEPT_REST_GROWTH = 2  # it gets a new file when it is twice as long: a chat of a whole evening is written few times
KEPT_REST_DAY_SHARE = 0.5  # of what a day allows; the rest is for what memory has no room for
KEPT_REST_BYTES_PER_S = 8 * 1024 * 1024  # while others may want the disk: a quarter of what an SD card takes
MAX_KEPT_FILES = 512  # whose ids are in memory: 4 bytes of each position
MAX_GUESSES = 15  # tokens of one step that are guessed: with the certain one, as many rows as kernels are made for
GUESS_MIN_CHANCE = 0.04  # of a guess: the cheapest row costs that much of a step
GUESS_MIN_GAIN = 1.03  # times as many tokens a second must be expected of guesses: less is noise
GUESS_MEMORY = 0.97  # what was right 32 tokens ago counts a third: an answer goes from prose to code and back
GUESS_TIMES_NEEDED = 2  # steps of so many rows, before their time is believed
GUESS_TIMES_KEPT = 9  # of which the median counts
GUESS_STEPS = 64  # steps after which one is made without guesses: what it takes grows with the context
GUESS_DRAFT_RETRY = 128  # tokens after which a draft that did not pay is tried again
GUESS_RETRY_STEPS = 512  # steps after which a number of rows that was too slow may be tried again

# --- chunks (swarm/store)
MAX_CHUNK_BYTES = MAX_BULK_FRAME_BYTES  # a chunk travels in one frame
CHUNK_BYTES = 1024 * 1024  # aimed at: 9 ms on gigabit; GLM-4.5-Air has 4,000 of them beside its experts
EXPERT_CHUNK_BYTES = 256 * 1024  # aimed at in expert tensors: one device's share of an expert is about so much
MAX_MANIFEST_BYTES = 48 * 1024 * 1024  # GLM-4.5-Air: 8 MB, of which 32 bytes a chunk
MAX_MANIFEST_CHUNKS = 1024 * 1024  # as many as one Have message can tell; 256 GB of experts
MAX_MANIFEST_NAMES_BYTES = 4 * 1024 * 1024  # tensor names: 2,000 of 30 characters in GLM-4.5-Air
SYNC_BYTES = 64 * 1024 * 1024  # written between two flushes: verified again after a power cut, in 0.1 s
MAX_STORE_FILES = 4096  # data files of one model: one a layer, of which there are at most MAX_LAYERS
MAX_OPEN_DATA_FILES = 32  # of one model at the same time; a process may have 1,024 open files

# --- fetching chunks (swarm/store/pull.py)
PULL_WINDOW_S = 0.25  # of a peer's measured rate that is asked ahead: hides its disk and ours, delays an answer little
PULL_WINDOW_MIN_BYTES = 2 * 1024 * 1024  # two chunks: one travels while the next is read
PULL_WINDOW_MAX_BYTES = 32 * 1024 * 1024  # a quarter second of 1 gbit
MAX_PULL_BYTES = 64 * 1024 * 1024  # asked or not yet on disk, from all peers: this much memory a fetch may take
MAX_PULL_REQUESTS = 64  # to one peer at a time: small chunks do not fill a window
PULL_PATIENCE_S = 3.0  # without a byte from a peer that was asked; then others are asked instead
PULL_PATIENCE_MAX_S = 15.0  # on a slow link a chunk may take so long
PULL_BACKOFF_MAX_S = 30.0  # a peer that did not deliver is tried again after 1, 2, 4 ... this
PULL_HAVE_INTERVAL_S = 1.0  # between questions to a peer what it has by now
PULL_TICK_S = 0.25  # a silent peer is noticed this late at most
PULL_RUN_BYTES = 16 * 1024 * 1024  # asked of a peer in the order of its disk
PULL_RUN_CHUNKS = 128  # and no more than so many at once
PULL_HELP_AFTER_S = 0.5  # in the end a chunk that is on its way so long is asked of a second peer too
MAX_PULL_PEERS = MAX_PEERS

# --- the node (swarm/node) and its local API
IDLE_CATALOG_INTERVAL_S = 60.0  # the same in an idle swarm
CATALOG_INTERVAL_S = 5.0  # tell again what models are here: of two links the one that dies may have carried it
PULL_REPORT_S = 0.5  # between two reports of what was brought of a model that several devices pull
MAX_REPORTED_CHUNKS = 16 * 1024  # of one report: half a MB
MAX_PULLS_HELPED = 4  # at the same time; the next one is told to do without this device
PULL_SILENCE_S = 60.0  # a device that brings nothing for so long loses its share to the others
ADOPT_PATIENCE_S = 30.0  # for the devices that helped to offer what they brought
SPREAD_AFTER_S = (
    180.0  # of a node's life, before it makes second copies: the devices that have them may be on their way
)
SPREAD_EVERY_S = 60.0  # a look for models that only one device has
OFFER_EVERY_S = 15.0  # a look into the directory of models
OFFER_QUIET_S = 5.0  # since a file there was written: it may still be coming
REMOVE_PATIENCE_S = 5.0  # for other devices to say that a model is deleted there
FETCH_PATIENCE_S = 60.0  # without a single chunk: a device that reboots is back within this
MANIFEST_TIMEOUT_S = 10.0  # one piece of 4 MB, on the worst Wi-Fi
SETTLE_S = 3.0  # after the start: a model that nobody seems to have may be on a device that is about to be found
BUSY_FETCH_BYTES_PER_S = 1024 * 1024  # at least, while an answer passes through a device: a fetch must end some day
MAX_LOG_BYTES = 4 * 1024 * 1024  # of a node in the background; the one before is kept, and none older
MAX_EVENTS_PER_S = 1.0  # of one kind, in the log and the live view; more are counted
MAX_EVENTS_AT_ONCE = 500.0
MANIFEST_MAX_S = 30.0  # a whole manifest from one device; then the next one is asked
MAX_UNKNOWN_OFFERS = 4  # placements of models that are not known here, that one device may have waiting
MAX_SHOWN_EVENTS = 200  # that a node remembers for `swarm status`
MAX_REMEMBERED_PEERS = 64  # devices that are called again at the next start
MAX_REQUEST_BYTES = 8 * 1024 * 1024  # of one request to the local API: more text than any context holds, as JSON
MAX_REQUEST_OBJECTS = 100_000  # lists and objects of a request, and as many texts: 0.1 s to read; 25,000 messages
MAX_REQUEST_ITEMS = 262_144  # values in them: a prompt of so many token ids
MAX_REQUEST_NUMBER_CHARS = 64  # of a whole number; reading long ones takes quadratic time
MAX_REQUEST_DEPTH = 100  # levels of nesting; tool schemas of real programs have ten
MAX_MODEL_NAME_CHARS = 4096  # of a model's name in a request, or a path: it is compared with all that are known
MAX_EMBEDDED_TEXTS = 2048  # of a request for embeddings, as OpenAI has it: their vectors are in memory together
MAX_TOKENIZED_CHARS = 1024 * 1024  # that /tokenize takes at once, twice what the largest contexts here hold
API_READ_BYTES = 16 * 1024  # of a connection in one turn of the loop: of a body in single bytes 0.02 s
MAX_API_CONNECTIONS = 256  # open at once; chat programs keep a few each
KEPT_API_CONNECTIONS = 16  # beside them, for the command line
REQUEST_HEAD_S = 10.0  # from a connection's beginning, or its last answer, to the end of a request's headers
REQUEST_BODY_S = 30.0  # for the rest of it: 8 MiB through a slow tunnel
MAX_QUESTION_FILE_BYTES = 2 * 1024 * 1024  # of a file that is put into a question: more text than any context here
MAX_PAGE_READERS = 32  # pages that the state of the swarm is sent to: every device of a home, some tabs each
MAX_KEPT_STREAMS = 32  # whose readers may come back: as many answers as wait at most
MAX_KEPT_STREAM_BYTES = 8 * 1024 * 1024  # events of one; an answer of 8,192 tokens takes two
RESUME_S = 60.0  # a stream without a reader goes on for so long
UNREAD_REPLY_S = 60.0  # a client that takes nothing of its answer for so long is gone
