"""Hostile solvers, each with the verdicts that are right for it; each says BEGIN first, and HELD when it got something.

They reach for canaries: a token in the truth and in the supervisor's environment, a listening socket, a file to overwrite.
In the code TRUTH, VICTIM and PORT stand for these; /input and /output are as the contract says.
"""

# ruff: noqa: E501  (hostile one-liners stay on their lines)

from __future__ import annotations

from typing import NamedTuple

TOKEN = "TOP-SECRET-TOKEN-12345"
SHAPE = (8, 16, 16)
RANGES = {"z_step": (-35.0, 115.0), "spherical_aberr": (-0.07, 0.23), "refractive_index": (1.508, 1.538)}

ANY_END = ("OK", "E_EXIT", "E_CRASH", "E_NO_OUTPUT", "E_SUBMISSION", "E_EXTRA_FILES", "E_TIME", "E_CPU", "E_MEMORY")
STOPPED = ("E_TIME", "E_CPU", "E_MEMORY", "E_CRASH", "E_EXIT", "E_NO_OUTPUT")


class Attack(NamedTuple):
    """Code, the verdicts that are right, and whether a plain runner is breached by it (None: not run there, it could harm)."""

    code: str
    expected: tuple[str, ...]
    plain: bool | None = True


_TRY = """
def attempt(what, action):
    try:
        got = action()
    except OSError as error:
        print(what, "refused", error.strerror, flush=True)
    else:
        print("HELD", what, str(got)[:200], flush=True)
"""

_FILE = """
import h5py, numpy as np
SHAPE, SPEC = (8, 16, 16), {"z_step": 5.0, "spherical_aberr": 0.1, "refractive_index": 1.515}
X = np.full(SHAPE, 0.25, "<f4")
def write(x=X, spec=SPEC, head=(), sample="sample_00", fill=None, **how):
    said = dict(format="diffphys-submission", version="1", modality="confocal_3d", tier="hidden", method="Attack",
                challenge_sha256="0" * 64)
    with h5py.File("/output/submission.h5", "w") as f:
        for k, v in {**said, **dict(head)}.items():
            f.attrs[k] = np.bytes_(v) if isinstance(v, str) else v
        g = f.create_group(sample)
        for k, v in spec.items():
            g.attrs[k] = v
        (fill or (lambda f, g: g.create_dataset("x_hat", data=x, **how)))(f, g)
"""

_FILES: dict[str, tuple[str, bool]] = {
    # name: (code, whether a plain reader swallows it)
    "nan": ("write(np.full(SHAPE, np.nan, '<f4'))", True),
    "infinite": ("write(np.full(SHAPE, np.inf, '<f4'))", True),
    "huge_values": ("write(np.full(SHAPE, 3e38, '<f4'))", True),
    "wrong_shape": ("write(np.zeros((1, 1, 1), '<f4'))", True),
    "transposed": ("write(X.T.copy())", True),
    "wrong_type": ("write(X.astype('<f8'))", True),
    "complex_values": ("write(X * (1 + 1j))", True),
    "objects": ("write(fill=lambda f, g: g.create_dataset('x_hat', data=['a'] * 8, dtype=h5py.string_dtype()))", True),
    "spec_out_of_range": ("write(spec={**SPEC, 'z_step': 1e9})", True),
    "spec_nan": ("write(spec={**SPEC, 'z_step': float('nan')})", True),
    "spec_missing": ("write(spec={'z_step': 1.0})", True),
    "spec_extra": ("write(spec={**SPEC, 'score': 1.0})", True),
    "variable_text": ("write(head={'method': 'x'}.items(), fill=lambda f, g: (f.attrs.__setitem__('method', 'x' * 9), "
                      "g.create_dataset('x_hat', data=X)))", True),
    "extra_member": ("write(fill=lambda f, g: (g.create_dataset('x_hat', data=X), f.create_group('score')))", True),
    "other_sample": ("write(sample='sample_07')", False),
    "other_tier": ("write(head={'tier': 'public'}.items())", True),
    "external_link": ("write(fill=lambda f, g: g.__setitem__('x_hat', h5py.ExternalLink('TRUTH', '/x_true')))", True),
    "external_group": ("write(fill=lambda f, g: (f.__delitem__('sample_00'), "
                       "f.__setitem__('sample_00', h5py.ExternalLink('TRUTH', '/as_sample'))))", True),
    "external_storage": ("write(fill=lambda f, g: g.create_dataset('x_hat', SHAPE, '<f4', "
                         "external=[('VICTIM', 0, 8192)]))", True),
    "virtual_dataset": ("def vds(f, g):\n    layout = h5py.VirtualLayout(SHAPE, '<f4')\n"
                        "    layout[...] = h5py.VirtualSource('TRUTH', 'x_true', SHAPE)\n"
                        "    g.create_virtual_dataset('x_hat', layout)\nwrite(fill=vds)", True),
    "soft_link_cycle": ("write(fill=lambda f, g: g.__setitem__('x_hat', h5py.SoftLink('/sample_00/x_hat')))", False),
    "bomb_chunk": ("write(fill=lambda f, g: g.create_dataset('x_hat', SHAPE, '<f4', chunks=(8, 512, 2048), "
                   "maxshape=(8, None, None), compression='gzip', fillvalue=0.1).__setitem__((0, 0, 0), 1.0))", True),
    "bomb_declared": ("write(fill=lambda f, g: g.create_dataset('x_hat', (2**20, 2**12, 2**12), '<f4', chunks=(1, 64, 64)))", False),
    "many_objects": ("write(fill=lambda f, g: [g.create_group(str(i)) for i in range(3000)] and g.create_dataset('x_hat', data=X))", True),
    "pickle_attribute": ("import pickle\nclass P:\n    def __reduce__(self): return (print, ('HELD pickle',))\n"
                         "write(fill=lambda f, g: (g.create_dataset('x_hat', data=X), "
                         "f.attrs.__setitem__('state', np.void(pickle.dumps(P())))))", True),
    "user_block": ("write()\nb = open('/output/submission.h5', 'rb').read()\n"
                   "open('/output/submission.h5', 'wb').write(b'#!/bin/sh\\n'.ljust(512, b'\\0') + b)", True),
    "cut_short": ("write()\nb = open('/output/submission.h5', 'rb').read()\nopen('/output/submission.h5', 'wb').write(b[:900])", False),
}  # fmt: skip

_JOBS: dict[str, Attack] = {
    "network_tcp": Attack("import socket\nattempt('tcp', lambda: socket.create_connection(('127.0.0.1', PORT), 2))", ANY_END),
    "network_internet": Attack(
        "import socket\nattempt('dns', lambda: socket.gethostbyname('example.com'))\n"
        "attempt('tcp', lambda: socket.create_connection(('1.1.1.1', 53), 2))",
        ANY_END,
        None,
    ),
    "network_abstract_unix": Attack(
        "import socket\nattempt('unix', lambda: socket.socket(socket.AF_UNIX).connect('\\0diffphys-PORT'))", ANY_END
    ),
    "network_vsock": Attack("import socket\nattempt('vsock', lambda: socket.socket(40, 1))", ANY_END),
    "network_netlink": Attack("import socket\nattempt('netlink', lambda: socket.socket(16, 3, 0))", ANY_END),
    "read_truth": Attack(
        "for p in ('TRUTH', '/proc/1/rootTRUTH', '/proc/self/root/../../..TRUTH', '/input/../TRUTH', '/proc/1/cwd/TRUTH'):\n"
        "    attempt(p, lambda: open(p, 'rb').read()[-4000:])",
        ANY_END,
    ),
    "read_host_files": Attack(
        "import os\nfor p in ('/etc/passwd', '/etc/shadow', '/root/.ssh', '/home', '/var', '/proc/1/mem'):\n"
        "    attempt(p, lambda: os.listdir(p) if os.path.isdir(p) else open(p, 'rb').read(99))",
        ANY_END,
    ),
    "read_environment": Attack(
        "import os\nprint(dict(os.environ))\nfor p in os.listdir('/proc'):\n"
        "    if p.isdigit():\n"
        "        try: text = open(f'/proc/{p}/environ').read()\n"
        "        except OSError: continue\n"
        "        if 'TOP-SECRET' in text: print('HELD', text)",
        ANY_END,
    ),
    "inherited_descriptor": Attack(
        "import os\nfor f in os.listdir('/proc/self/fd'):\n    try: got = os.pread(int(f), 4000, 0)\n    except OSError: continue\n"
        "    if b'TOP-SECRET' in got: print('HELD', f, got)",
        ANY_END,
    ),
    "fork_bomb": Attack("import os\nwhile True:\n    try: os.fork()\n    except OSError: pass", STOPPED, None),
    "fork_bomb_own_sessions": Attack(
        "import os, signal\n[signal.signal(s, signal.SIG_IGN) for s in (1, 2, 3, 15)]\nwhile True:\n"
        "    try:\n        if os.fork() == 0: os.setsid()\n    except OSError: pass",
        STOPPED,
        None,
    ),
    "processes": Attack(
        "import os, time\nn = 0\ntry:\n    for n in range(200):\n        if os.fork() == 0: time.sleep(2); os._exit(0)\n"
        "    print('HELD', n, 'processes')\nexcept OSError as error: print(n, error.strerror)",
        ANY_END,
    ),
    "memory": Attack(
        "b = []\nfor i in range(40): b.append(bytearray(b'x' * 2**24))\nprint('HELD', len(b) * 16, 'MiB')", (*STOPPED, "E_EXIT")
    ),
    "memory_many_processes": Attack(
        "import os, time\nfor i in range(20):\n    if os.fork() == 0:\n        b = bytearray(b'x' * (60 * 2**20)); time.sleep(2)\n"
        "        print('HELD', i) if i == 19 else None; os._exit(0)\ntime.sleep(5)",
        STOPPED,
        None,
    ),
    "memory_shared": Attack(
        "for d in ('/tmp', '/dev/shm', '/output'):\n    n = 0\n    try:\n        with open(d + '/f', 'wb') as f:\n"
        "            while n < 2**30: n += f.write(b'0' * 2**20)\n        print('HELD', d)\n"
        "    except OSError as error: print(d, n, error.strerror)",
        ANY_END,
        None,
    ),
    "cpu": Attack("while True: pass", ("E_TIME", "E_CPU", "E_CRASH"), None),
    "cpu_threads": Attack(
        "import threading\ndef spin():\n    while True: pass\n[threading.Thread(target=spin).start() for _ in range(8)]",
        ("E_TIME", "E_CPU", "E_CRASH"),
        None,
    ),
    "sleep": Attack("import time\ntime.sleep(9)\nprint('HELD on')", ("E_TIME",)),
    "stop_itself": Attack("import os, signal\nwhile True: os.kill(os.getpid(), signal.SIGSTOP)", ("E_TIME",), None),
    "daemon": Attack(
        "import os, time\nif os.fork() == 0:\n    os.setsid()\n    if os.fork() == 0:\n"
        "        time.sleep(3); open('VICTIM', 'a').write('daemon'); time.sleep(600)\n    os._exit(0)",
        ANY_END,
        None,
    ),
    "disk": Attack(
        "n = 0\nwith open('/output/submission.h5', 'wb') as f:\n    while n < 2**27: n += f.write(b'0' * 2**20)\nprint('HELD', n)",
        (*STOPPED, "E_FILE_TOO_BIG", "E_DISK"),
    ),
    "many_files": Attack(
        "import os\nfor d in ('/output', '/tmp', '/dev/shm'):\n    n = 0\n    os.makedirs(d + '/x')\n    try:\n"
        "        for n in range(20000): open(f'{d}/x/{n}', 'w').close()\n        print('HELD', d)\n"
        "    except OSError as error: print(d, n, error.strerror)",
        ("E_NO_OUTPUT", "E_EXTRA_FILES", "E_DISK", "E_TIME"),
        None,
    ),
    "symlink_truth": Attack("import os\nos.symlink('TRUTH', '/output/submission.h5')", ("E_NOT_REGULAR",)),
    "symlink_passwd": Attack("import os\nos.symlink('/etc/passwd', '/output/submission.h5')", ("E_NOT_REGULAR",)),
    "hard_link": Attack(
        "import os\ntry: os.link('/input/challenge.h5', '/output/submission.h5')\nexcept OSError as error: print(error)",
        ("E_NO_OUTPUT", "E_NOT_REGULAR"),
    ),
    "named_pipe": Attack("import os\nos.mkfifo('/output/submission.h5')", ("E_NOT_REGULAR",)),
    "directory": Attack("import os\nos.makedirs('/output/submission.h5/a')", ("E_NOT_REGULAR",)),
    "device": Attack(
        "import os\nattempt('device', lambda: os.mknod('/output/submission.h5', 0o20666, os.makedev(1, 3)))",
        ("E_NO_OUTPUT", "E_NOT_REGULAR"),
    ),
    "forged_score": Attack(_FILE + "write()\nopen('/output/score.json', 'w').write('{\"score\": 1.0}')", ("E_EXTRA_FILES",)),
    "kill_parent": Attack(
        "import os, signal\nfor p in (os.getppid(), 1, -1):\n    try: os.kill(p, signal.SIGKILL)\n    except OSError as e: print(p, e)",
        (*STOPPED, "OK"),
    ),
    "trace_supervisor": Attack(
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nimport os\n"
        "print('HELD ptrace') if libc.ptrace(16, os.getppid(), 0, 0) == 0 else print('refused')",
        ANY_END,
        None,
    ),
    "write_outside": Attack(
        "import sys, os\nfor p in ('VICTIM', sys.executable, os.__file__, '/input/challenge.h5', '/algo/solve.py', '/etc/x', '/x',\n"
        "          '/proc/sys/kernel/core_pattern', '/proc/sys/vm/overcommit_memory', '/sys/x', '/opt/diffphys/diffphys/x'):\n"
        "    attempt(p, lambda: open(p, 'ab').write(b''))",
        ANY_END,
        None,
    ),
    "write_host_file": Attack("attempt('victim', lambda: open('VICTIM', 'a').write('PWNED'))", ANY_END),
    "namespaces": Attack(
        "import ctypes, os\nlibc = ctypes.CDLL(None, use_errno=True)\n"
        "for name, got in (('unshare', libc.unshare(0x10020000)), ('mount', libc.mount(b't', b'/tmp', b'tmpfs', 0, None)),\n"
        "                  ('chroot', libc.chroot(b'/tmp'))):\n    print('HELD ' + name if got == 0 else name)\n"
        "attempt('root', lambda: os.setuid(0))",
        ANY_END,
        None,
    ),
    "kernel_surface": Attack(
        "import ctypes\nlibc = ctypes.CDLL(None, use_errno=True)\nfor n in (425, 250, 248, 321, 298, 323, 310):\n"
        "    libc.syscall(n, 0, 0, 0, 0, 0); e = ctypes.get_errno(); print(n, e) if e == 1 else print('HELD', n, e)",
        ANY_END,
    ),
    "log_flood": Attack("import sys\nwhile True: sys.stdout.write('A' * 65536)", ("E_TIME", "E_CPU", "E_CRASH"), None),
    "log_injection": Attack("print('\\x1b]0;pwn\\x07\\x1b[2J {\"score\": 1.0}')", ("E_NO_OUTPUT",), None),
    "result_pipe_forged": Attack(
        "import os\nfor p in os.listdir('/proc'):\n    if p.isdigit():\n        for f in range(3, 20):\n"
        "            try: os.write(os.open(f'/proc/{p}/fd/{f}', os.O_WRONLY), b'BOK{\"score\": 1.0}')\n            except OSError: pass",
        (*ANY_END, "E_READER_CRASH"),
        None,
    ),
    "crash": Attack("import ctypes\nctypes.string_at(0)", ("E_CRASH",), None),
    "exit_one": Attack("raise SystemExit(1)", ("E_EXIT",), None),
    "no_output": Attack("pass", ("E_NO_OUTPUT",), None),
    "not_hdf5": Attack("open('/output/submission.h5', 'w').write('{\"score\": 1.0}' * 99)", ("E_SUBMISSION",), False),
    "pickle_file": Attack(
        "import pickle\nclass P:\n    def __reduce__(self): return (print, ('HELD',))\n"
        "open('/output/submission.h5', 'wb').write(pickle.dumps(P()) + b' ' * 999)",
        ("E_SUBMISSION",),
        False,
    ),
}

HONEST = Attack(_FILE + "write()", ("OK",), None)
ATTACKS: dict[str, Attack] = {
    **{name: job._replace(code=_TRY + job.code) for name, job in _JOBS.items()},
    **{name: Attack(_FILE + code, ("E_SUBMISSION", "E_FILE_TOO_BIG"), plain) for name, (code, plain) in _FILES.items()},
}
