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

# What is alive is compacted, and a fork's child looks at it too.
RUBY = """
require 'digest'
h = {}; s = 7; n = %d * 3000
n.times { |i| s = s * 16807 %% 2147483647; h["key#{i}"] = [s, 'x' * (s %% 300), i.to_s] }
sum = lambda { d = Digest::SHA256.new; h.each { |k, v| d << k << v.join(' ') }; d.hexdigest }
puts sum.call
(0...n).step(3) { |i| h.delete("key#{i}") }
GC.compact
pid = fork { puts sum.call; $stdout.flush; exit!(3) }
Process.wait(pid)
puts $?.exitstatus, sum.call
puts 2.times.map { |k| Thread.new { (0...n).map { |i| "#{k}:#{i}" }.join.sum } }.map(&:value).inspect
"""

# Compiled while it runs; what lies in circles is collected.
PHP = """
ini_set('memory_limit', '-1'); mt_srand(1);
$n = %d * 6000; $h = []; $s = 7;
for ($i = 0; $i < $n; $i++) { $s = $s * 16807 %% 2147483647; $h["key$i"] = [$s, str_repeat('x', $s %% 200), (string)$i]; }
$d = hash_init('sha256');
foreach ($h as $k => $v) hash_update($d, $k . implode(' ', $v));
class Node { public $self; public $other; }
for ($i = 0; $i < $n; $i++) { $node = new Node; $node->self = $node; $node->other = $h["key$i"]; }
echo gc_collect_cycles() > 0 ? 'collected ' : 'none ';
function f($n) { $a = 0; for ($i = 0; $i < $n; $i++) $a = ($a + $i * $i) & 0xffffff; return $a; }
$k = array_keys($h); shuffle($k); sort($k);
foreach ($k as $key) hash_update($d, $key);
echo f(300000), hash_final($d), PHP_EOL;
"""

# All of its memory is within the lower two GiB, or what it can address so.
LUAJIT = """
local h, s, n, sum = {}, 7, %d * 3000, 0
for i = 1, n do s = s * 16807 %% 2147483647; h[i] = {s, ('x'):rep(s %% 200) .. i} end
collectgarbage()
for i = 1, n do sum = (sum * 31 + h[i][1] + #h[i][2]) %% 2147483647 end
print(sum)
local numbers = require('ffi').new('double[?]', n * 60)
for i = 0, n * 60 - 1 do numbers[i] = i * 7919 %% 1000003 end
for i = 0, n * 60 - 1 do sum = (sum * 31 + numbers[i]) %% 2147483647 end
print(sum)
"""

ERLANG = """
N = %d * 5000, T = ets:new(t, [public]),
lists:foldl(fun(I, S) -> R = S * 16807 rem 2147483647, ets:insert(T, {I, R, lists:duplicate(R rem 20, x), <<R:512>>}), R end,
            7, lists:seq(1, N)),
Sum = fun() -> lists:foldl(fun(I, A) -> [{_, R, L, B}] = ets:lookup(T, I), (A * 31 + R + length(L) + size(B)) rem 2147483647 end,
                           0, lists:seq(1, N)) end,
io:format("~p~n", [Sum()]), P = self(),
[spawn(fun() -> P ! {K, erlang:phash2(lists:reverse([{K, I} || I <- lists:seq(1, N)]))} end) || K <- [1, 2, 3]],
[receive {K, H} -> io:format("~p ~p~n", [K, H]) end || K <- [1, 2, 3]],
garbage_collect(), io:format("~p~n~s", [Sum(), os:cmd("echo a child")]), halt(3).
"""

GUILE = """
(define n (* %d 2500))
(define (next s) (modulo (* s 16807) 2147483647))
(define v (make-vector n))
(let loop ((i 0) (s 7)) (if (< i n) (begin
  (vector-set! v i (list s (make-string (modulo s 200) #\\x) (number->string i))) (loop (+ i 1) (next s)))))
(define (total) (let loop ((i 0) (sum 0)) (if (= i n) sum (let ((e (vector-ref v i)))
  (loop (+ i 1) (modulo (+ (* sum 31) (car e) (string-length (cadr e)) (string->number (caddr e))) 2147483647))))))
(display (total)) (newline) (gc) (display (total)) (newline)
(use-modules (ice-9 threads))
(display (par-map (lambda (k) (apply + (map (lambda (e) (* k (car e))) (vector->list v)))) '(1 2 3))) (newline)
"""

# Its heap is executable memory.
SBCL = """
(progn
  (defparameter *n* (* %d 4000))
  (defparameter *table* (make-hash-table :test 'equal))
  (let ((s 7))
    (dotimes (i *n*)
      (setf s (mod (* s 16807) 2147483647))
      (setf (gethash (format nil "key~d" i) *table*) (list s (make-string (mod s 60) :initial-element #\\x) i))))
  (defun total (&aux (sum 0))
    (dotimes (i *n* sum)
      (let ((v (gethash (format nil "key~d" i) *table*)))
        (setf sum (mod (+ (* sum 31) (first v) (length (second v)) (third v)) 2147483647)))))
  (print (total))
  (gc :full t)
  (print (mapcar #'sb-thread:join-thread
                 (loop for k below 3 collect (let ((k k)) (sb-thread:make-thread (lambda () (* k (total))))))))
  (print (funcall (compile nil '(lambda () (total)))))
  (exit :code 0))
"""
