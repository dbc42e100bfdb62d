"""The loop that takes several threads through a program of kernels, without Python in between.

A program is a table of steps, `[steps, 4]` int64: the address of a kernel's call, how many parts
may run at the same time, where their arguments are, and how many bytes lie between those of two
parts. A step begins when the one before is done. Parts are not dealt out but taken: a thread that
is held up, or that comes late, costs no more than the part it holds, and the caller's own thread
gets through alone if nobody helps.

Each step has a counter of parts taken and one of parts done, on cache lines of their own. Both
carry the number of the run, so that a thread that wakes after its run is over finds nothing to do.
"""

STATE_WORDS = 16
"""int64 words that a step's counters take: two cache lines."""

_PARTS_BITS = 20
_SPINS = 2000

_TEXT = """
define void @run_program(ptr %table, i64 %steps, ptr %state, i64 %run, ptr %rest) #0 {
entry:
  %first = shl i64 %run, PARTS_BITS
  br label %step
step:
  %s = phi i64 [ 0, %entry ], [ %following, %next ]
  %more = icmp slt i64 %s, %steps
  br i1 %more, label %begin, label %leave
begin:
  %row = mul i64 %s, 4
  %here = getelementptr i64, ptr %table, i64 %row
  %kernel = load ptr, ptr %here
  %parts_at = getelementptr i64, ptr %here, i64 1
  %parts = load i64, ptr %parts_at
  %arguments_at = getelementptr i64, ptr %here, i64 2
  %arguments = load ptr, ptr %arguments_at
  %size_at = getelementptr i64, ptr %here, i64 3
  %size = load i64, ptr %size_at
  %place = mul i64 %s, STATE_WORDS
  %taken = getelementptr i64, ptr %state, i64 %place
  %done = getelementptr i64, ptr %taken, i64 8
  %limit = add i64 %first, %parts
  br label %take
take:
  %old = load atomic i64, ptr %taken acquire, align 8
  %later = icmp sge i64 %old, %limit
  br i1 %later, label %check, label %try
try:
  %new = add i64 %old, 1
  %pair = cmpxchg ptr %taken, i64 %old, i64 %new acq_rel monotonic, align 8
  %mine = extractvalue { i64, i1 } %pair, 1
  br i1 %mine, label %work, label %take
work:
  %part = sub i64 %old, %first
  %offset = mul i64 %part, %size
  %given = getelementptr i8, ptr %arguments, i64 %offset
  call void %kernel(ptr %given)
  %counted = atomicrmw add ptr %done, i64 1 acq_rel, align 8
  br label %take
check:
  br label %wait
wait:
  %spins = phi i64 [ 0, %check ], [ %spun, %pause ], [ 0, %yield ]
  %finished = load atomic i64, ptr %done acquire, align 8
  %ready = icmp sge i64 %finished, %limit
  br i1 %ready, label %next, label %spin
spin:
  %spun = add i64 %spins, 1
  %long = icmp sgt i64 %spun, SPINS
  br i1 %long, label %yield, label %pause
pause:
  PAUSE
  br label %wait
yield:
  %ignored = call i32 %rest()
  br label %wait
next:
  %following = add i64 %s, 1
  br label %step
leave:
  ret void
}
"""


def run_program(triple: str) -> tuple[str, str]:
    """The loop's definition, and the declaration that it needs.

    A run's number must be greater than that of the run before it, and its counters must be set to
    `first_count(run)` before any thread is called.

    Args:
        triple: LLVM's name of the machine.
    """
    pause, declaration = "", ""
    if triple.startswith(("x86_64", "i386", "i686", "amd64")):
        declaration = "declare void @llvm.x86.sse2.pause()"
        pause = "call void @llvm.x86.sse2.pause()"
    elif triple.startswith(("aarch64", "arm64")):
        declaration = "declare void @llvm.aarch64.hint(i32)"
        pause = "call void @llvm.aarch64.hint(i32 1)"
    text = _TEXT.replace("PARTS_BITS", str(_PARTS_BITS)).replace("STATE_WORDS", str(STATE_WORDS))
    return text.replace("SPINS", str(_SPINS)).replace("PAUSE", pause), declaration


def first_count(run: int) -> int:
    """What the counters of a run begin with."""
    return run << _PARTS_BITS
