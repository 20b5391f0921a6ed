"""Every bound and timing that more than one module relies on: value, unit, reason.

A limit that stands somewhere else is private to its file. Relations between limits are asserted at the
end, so that a change which breaks one of them cannot be imported.
"""

# Frames and connections
MAX_BODY = (1 << 20) + 4096       # bytes; a block of 1 MiB and its fields
MAX_BUFFERED = 4 << 20            # bytes queued to one peer before the producer must wait
LOW_WATER = 1 << 20               # bytes; a waiting producer goes on below this
FRAME_DEADLINE = 30.0             # s to finish one frame: slow-loris after the handshake
MAX_REQUESTS = 1024               # requests in flight on one connection, each way
MAX_ANSWERING = 8                 # large answers made at once for one connection: a thousand questions of 60 bytes were 1 GiB
READ_BUDGET = 1 << 18             # bytes read from one connection a turn, so that a flooder cannot starve the others
REQUEST_TIMEOUT = 10.0            # s; a peer that is alive answers within this

# Accepting
HANDSHAKE_DEADLINE = 5.0          # s from accept to the other's HELLO
MAX_PENDING = 64                  # handshakes at once; the oldest is evicted, since refusing newcomers locks friends out
MAX_PENDING_ADDRESS = 8           # of these from one address
MAX_ACCEPTS = 64                  # accepts a turn

# Keeping connections
TICK = 0.5                        # s; keepalives are swept in ticks, one timer for all connections
KEEPALIVE = 2.0                   # s of silence before a KEEPALIVE is sent
SILENCE = 6.0                     # s of silence before a connection counts as lost: three unanswered keepalives
MAX_LINKS = 1000                  # nodes connected at once; fewer where the process may not have so many descriptors
MAX_LINKS_ADDRESS = 100           # of these from one address: one computer can be any number of nodes
LINGER = 1.0                      # s a closing connection waits for the other's end, so that the last words arrive
DIAL_TIMEOUT = 5.0                # s for TCP and TLS together
MAX_DIALS = 64                    # kept peers dialled at once; a thousand invented ones would take every descriptor of the process
DIAL_GIVES_WAY = 1.0              # s after which a dial without result makes room for one that waits
REDIAL_FIRST = 0.25               # s; doubled at each failure, with jitter
REDIAL_LAST = 30.0                # s; the longest pause between two tries

# Discovery
PORT = 47474                      # root port, UDP and TCP
MAX_DATAGRAM = 1200               # bytes; below every path MTU met in practice (QUIC's bound, RFC 9000 section 14)
REPLAY_WINDOW = 64                # datagrams per network and sender
HINT_PAUSE = 10.0                 # s between two dials of one ID on the word of a beacon
BEACON_START = (0.0, 0.06, 0.2, 0.55, 1.4, 3.0)   # s after the start; then the steady rate
BEACON_EVERY = 1.0                # s between two beacons in the whole network: n nodes send one each n times this
BEACON_SLOWEST = 30.0             # s; however many nodes there are
INTERFACES_EVERY = 5.0            # s between two looks at the list of interfaces

# Membership
MAX_MEMBERS = 1024                # nodes in the table
MAX_ADDRESSES = 8                 # addresses kept for one node
FORGET = 24 * 3600.0              # s a dead or departed node stays in the table
HINT_TRIES = 3                    # dials of a hinted address where something listens but has no room for us; else one
REFUSALS = 2                      # refused dials after an EOF that make a node dead

VIEW_EVERY = 1.0                  # s between two looks whether the own view has changed and must be told
VIEW_QUESTIONS = 3                # in each of these: one answer mostly says all, and each is as long as the table
VIEW_PAUSE = 5.0                  # s between two questions to one peer whose view differs
VIEW_AGAIN = 60.0                 # s between two where both views are still what they were at the first
PING_EVERY = 10.0                 # s between two measured round trips on a link
SAVE_EVERY = 5.0                  # s in which changes of the remembered nodes are gathered before they are written
PUBLISH_EVERY = 0.1               # s in which changes are gathered before p2pstate is written
COUNTERS_EVERY = 5.0              # s after which p2pstate is written even if only counters changed
PORTS_TRIED = 64                  # root TCP ports tried from the wanted one upwards

# Applications' files
MAX_MANIFEST = 1 << 20            # bytes; one MANIFEST message
MAX_FILES = 10_000                # files and empty folders of one version: what fits into a manifest at 60 characters a path
MAX_APP_BYTES = 8 << 30           # bytes of one version; a larger one is a mistake or a bomb
MAX_DEPTH = 16                    # components of a path
MAX_PATH = 512                    # characters of a path; macOS allows 1,024 with the folders above
MAX_APP_NAME = 64                 # characters of an application's name
MAX_BLOCK = 1 << 20               # bytes of a file in one answer
STORE_QUOTA = 64 << 30            # bytes of all installed versions
DISK_RESERVE = 64 << 20           # bytes that stay free for the rest of the computer: a full disk breaks more than us

# Who offers and holds which applications
MAX_OFFERS = 1000                 # offers known; each is up to 0.5 KiB
MAX_OFFERS_PUBLISHER = 64         # of these by one key: one publisher cannot fill the table
MAX_HOLDINGS_NODE = 1024          # versions one node may say it holds
MAX_HOLDINGS = 32_768             # in all, about 4 MB: in the open network anybody can be many nodes

# p2pstate, and what one application sends to another
MAX_DENIED = 1000                 # nodes removed from one network; its list has then 32 KB
MAX_DENY_LISTS = 8                # lists of one network that no other one contains; only admins make them, and join them
MAX_NETWORKS = 16                 # this node is in; their bits fit into a u16 of each node's row
MAX_SESSIONS = 64                 # shown in p2pstate...
MAX_SESSIONS_OTHERS = 48          # ...of which others may host so many: invitations must not keep this user from starting his own
MAX_JOBS = 64                     # shown in p2pstate
MAX_MESSAGE = 1 << 20             # bytes of one application message's fields
MAX_SHARED = 1 << 19              # bytes of a session's shared state: it goes to newcomers in one message...
MAX_SHARED_KEYS = 10_000          # ...with a few more for each of these
MAX_SCHEMA = 1024                 # bytes of a message class's name, fields and types

# Consent and sessions
ASK_FOR = 60.0                    # s in which a person may answer a request; no answer is no
ASK_GRACE = 10.0                  # s more until the host gives an answer up that was on its way
MAX_REQUESTS_OPEN = 3             # requests of one peer that may wait at once
REQUEST_BURST = 3                 # requests a peer may make at once...
REQUEST_REFILL = 10.0             # s ...and then one in each of these
MAX_RULES = 1000                  # remembered answers...
MAX_RULES_FILE = 4 << 20          # bytes ...and of all together: one with all its arguments can have 64 KiB; a file above is not read
JOB_OUTPUT = 1 << 20              # bytes kept of what a job printed
JOB_REPLAY = 1 << 16              # bytes shown again on `attach`
JOBS_KEPT = 32                    # ended jobs that `jobs` and `output` still know
KILL_AFTER = 5.0                  # s from asking a job to end to killing it
END_AFTER = 3.0                   # s that a program has to exit by itself when its session has ended; busy ones are killed then

# Joining a managed network by a code
JOIN_FOR = 600.0                  # s a code can be used: long enough to be told over a telephone
JOIN_TRIES = 3                    # of a code: two mistakes in typing; a stranger guesses one of 2**30 in each
JOIN_CONFIRM = 30.0               # s from a try to its confirmation; slow boards take a second for the arithmetic
JOIN_SEEK_FOR = 5.0               # s in which nodes say whether an invitation waits there
JOIN_MEET_FOR = 3.0               # s from a root's start in which it meets the others: so long "nobody has it" is not said
MAX_INVITERS = 8                  # nodes a code is tried at: who pretends to have invited gets one guess at it
MAX_INVITATIONS = 16              # open at once; selectors (2 characters) must stay rare among the 1,024

# Names and texts
MAX_NAME = 64                     # cells shown of a foreign name
MAX_LINE = 4096                   # bytes of a `say`

assert 2 * (KEEPALIVE + TICK) < SILENCE < FORGET and KEEPALIVE * 3 <= SILENCE
assert LOW_WATER < MAX_BUFFERED and MAX_BODY < MAX_BUFFERED
assert DIAL_GIVES_WAY < DIAL_TIMEOUT
assert MAX_PENDING_ADDRESS < MAX_PENDING
assert max(MAX_MANIFEST, MAX_BLOCK) < MAX_BODY and MAX_OFFERS_PUBLISHER < MAX_OFFERS
assert JOIN_CONFIRM < JOIN_FOR and REQUEST_TIMEOUT < JOIN_CONFIRM and JOIN_MEET_FOR <= JOIN_SEEK_FOR
assert MAX_SESSIONS_OTHERS < MAX_SESSIONS
assert MAX_NETWORKS <= 16 and MAX_MESSAGE < MAX_BODY and MAX_SHARED + 8 * MAX_SHARED_KEYS < MAX_MESSAGE
assert MAX_HOLDINGS_NODE < MAX_HOLDINGS and MAX_FILES * 60 < MAX_MANIFEST
