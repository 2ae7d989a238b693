"""Pages over a slow connection: compressed where that is faster, against the same without, and raw TCP."""
from lib.net import SlowNetwork

SHARE_S = 120
SIZE_MIB = 96
LOCAL_MIB = 32
# Words after which a page repeats itself: LZ4 makes half of it, or nothing.
KINDS = (("halved by LZ4", 256), ("not compressible", 512))
RATES_MBIT = (1000, 5000)


def run(bench):
    for mbit in RATES_MBIT:
        with SlowNetwork(mbit):
            over_one(bench, mbit)


def over_one(bench, mbit):
    size, local = bench.scaled(SIZE_MIB, 24), bench.scaled(LOCAL_MIB, 16)
    work = bench.tool("work")
    got = {}
    streams = []
    for turn in bench.turns(share=1 / len(RATES_MBIT)):
        for _, period in KINDS:
            for how in ("auto", "no") if turn % 2 else ("no", "auto"):
                for words in (["seqwrite", f"mib={size}", f"skip={local}"], ["seqread", f"mib={size}", "passes=1"]):
                    with bench.dms() as dms:
                        run = bench.client([work, *words, f"period={period}"], local, dms,
                                           options=[f"--compress={how}"])
                    got.setdefault((words[0], period, how), []).append(run)
        streams.append(bench.run([work, "stream", f"mib={size}"]).json()["mb_per_s"])
    for kind, period in KINDS:
        for what, rate in (("write", "mb_per_s"), ("read", "out_mb_per_s")):
            auto, without = ([one.json()[rate] for one in got[f"seq{what}", period, how]] for how in ("auto", "no"))
            title = f"{mbit / 1000:g} Gbit/s, sequential {what}, {kind}"
            bench.figure(title, "MB/s", auto, "--compress=no", without)
            bench.figure(title, "MB/s", auto, "raw TCP stream", streams)
        runs = got["seqwrite", period, "auto"] + got["seqread", period, "auto"]
        compressed = sum(one.stats["compress"]["lz4"] for one in runs)
        bench.say(f"{mbit / 1000:g} Gbit/s, {kind}: {compressed / sum(one.stats['pages_put'] for one in runs):.0%} "
                  "of the pages were compressed")
