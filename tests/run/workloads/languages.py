"""What suites.py runs in other languages: each prints a checksum of what it has in memory. MIB is %d."""

NODE = """
const crypto = require('crypto');
let state = 12345;
const next = () => { state = (Math.imul(state, 1103515245) + 12345) & 0x7fffffff; return state; };
const map = new Map(), blocks = [];
for (let i = 0; i < %d * 4000; i++) map.set('key' + i, {number: next(), words: [i, String(i * 7)]});
for (let i = 0; i < %d * 4; i++) blocks.push(Buffer.alloc(1 << 16, next() & 255));
const hash = crypto.createHash('sha256');
for (const key of [...map.keys()].sort()) { const v = map.get(key); hash.update(key + v.number + v.words.join()); }
for (const block of blocks) hash.update(block);
console.log(hash.digest('hex'));
"""

PERL = """
use Digest::MD5;
my %%h; my $s = 7;
for my $i (1 .. %d * 4000) { $s = ($s * 1103515245 + 12345) %% 2147483648; $h{"key$i"} = [$s, "x" x ($s %% 100)]; }
my $d = Digest::MD5->new;
$d->add("key$_", $h{"key$_"}[0], $h{"key$_"}[1]) for 1 .. %d * 4000;
print $d->hexdigest, "\\n";
"""

GAWK = """
BEGIN {
    s = 7
    for (i = 0; i < %d * 5000; i++) { s = (s * 16807) %% 2147483647; a[i] = s; b["k" s] = i "x" s }
    for (i in a) { sum = (sum + a[i] * length(b["k" a[i]])) %% 2147483647; if (i %% 8 == 0) c[i] = a[i] }
    n = asort(c)
    for (i = 1; i <= n; i++) sum = (sum * 31 + c[i]) %% 2147483647
    print length(a), n, sum
}
"""

# A wave on a membrane, step by step, a sort, a transform and a product.
NUMPY = """
import hashlib, numpy
n = int((%d * 40000) ** 0.5)
now = numpy.zeros((n, n)); now[n // 3, n // 2] = 1e3; before = now.copy()
for step in range(8):
    after = 2 * now - before
    after[1:-1, 1:-1] += 0.25 * (now[2:, 1:-1] + now[:-2, 1:-1] + now[1:-1, 2:] + now[1:-1, :-2] - 4 * now[1:-1, 1:-1])
    before, now = now, after
hash = hashlib.sha256(now.tobytes())
numbers = numpy.random.default_rng(1).integers(0, 1 << 60, %d * 60000)
numbers.sort()
hash.update(numbers.tobytes())
hash.update(numpy.fft.fft(numbers.astype(float)[:1 << 18]).tobytes())
hash.update((numbers[:160000].reshape(400, 400) @ numbers[160000:320000].reshape(400, 400)).tobytes())
print(hash.hexdigest())
"""
