"""Processor time of threads, from outside."""
import os


def processor_s(pid):
    """Of each thread that there is now: its name and seconds, by its number."""
    times = {}
    for thread in os.listdir(f"/proc/{pid}/task"):
        path = f"/proc/{pid}/task/{thread}"
        try:
            with open(f"{path}/comm", encoding="utf-8", errors="replace") as file:
                name = file.read().strip()
            with open(f"{path}/schedstat", encoding="ascii") as file:
                times[int(thread)] = (name, int(file.read().split()[0]) / 1e9)
        except FileNotFoundError:
            pass
    return times


def children(pid):
    found = []
    for entry in filter(str.isdigit, os.listdir("/proc")):
        try:
            with open(f"/proc/{entry}/stat", encoding="utf-8", errors="replace") as file:
                if int(file.read().rsplit(")", 1)[1].split()[1]) == pid:
                    found.append(int(entry))
        except FileNotFoundError:
            pass
    return found


def of_client(pid):
    """What `edm --mode=client` and what it has put into its program have used, by what they do; and
    the program itself."""
    used = {}

    def add(what, seconds):
        used[what] = used.get(what, 0) + seconds

    for thread, (name, seconds) in processor_s(pid).items():
        add("main" if thread == pid else "pager" if name == "edm-pager" else "write-back", seconds)
    for child in children(pid):
        for thread, (name, seconds) in processor_s(child).items():
            add("guard" if name == "edm-guard" else "program" if thread == child else "agent", seconds)
    return used


def of_dms(pid):
    used = {}
    for name, seconds in (entry for entry in processor_s(pid).values()):
        what = "DMS, ZeroMQ" if name.startswith("ZMQ") else "DMS, shard"
        used[what] = used.get(what, 0) + seconds
    return used
