import java.lang.management.GarbageCollectorMXBean;
import java.lang.management.ManagementFactory;
import java.util.Arrays;
import java.util.HashMap;
import java.util.Map;
import java.util.SplittableRandom;

/**
 * Verified MIB THREADS ROUNDS: fills MIB of heap with objects that follow from a seed each, replaces ROUNDS times as
 * many at random, from several threads, and compares each with its seed before it goes, and all in the end. What is
 * printed depends on nothing but the arguments. The number of collections goes to standard error.
 */
public final class Verified {
    private static final int MEAN_BYTES = 1200;
    private static final int MAX_BYTES = 2000;

    private final long[] seeds;
    private final Object[] objects;
    private final SplittableRandom random;
    private long sum;

    private Verified(int count, int thread) {
        seeds = new long[count];
        objects = new Object[count];
        random = new SplittableRandom(thread);
        for (int i = 0; i < count; i++) {
            put(i);
        }
    }

    /** Arrays, strings and maps: large and small objects, with and without references in them. */
    private static Object make(long seed) {
        SplittableRandom random = new SplittableRandom(seed);
        int bytes = 1 + random.nextInt(MAX_BYTES);
        switch ((int) (seed & 3)) {
        case 0:
            byte[] raw = new byte[bytes];
            random.nextBytes(raw);
            return raw;
        case 1:
            long[] numbers = new long[bytes / Long.BYTES];
            for (int i = 0; i < numbers.length; i++) {
                numbers[i] = random.nextLong();
            }
            return numbers;
        case 2:
            String[] words = new String[bytes / 64];
            for (int i = 0; i < words.length; i++) {
                words[i] = Long.toHexString(random.nextLong());
            }
            return words;
        default:
            Map<Long, String> map = new HashMap<>();
            for (int i = 0; i < bytes / 128; i++) {
                map.put(random.nextLong(), Integer.toString(i));
            }
            return map;
        }
    }

    private static boolean isEqual(Object one, Object other) {
        return Arrays.deepEquals(new Object[] {one}, new Object[] {other});
    }

    private void put(int i) {
        seeds[i] = random.nextLong();
        objects[i] = make(seeds[i]);
        sum = sum * 31 + seeds[i];
    }

    private void check(int i) {
        if (!isEqual(objects[i], make(seeds[i]))) {
            throw new AssertionError("object " + i + " of seed " + seeds[i] + " is not as it was made");
        }
    }

    private void run(int rounds) {
        for (long n = (long) rounds * objects.length; n > 0; n--) {
            int i = random.nextInt(objects.length);
            check(i);
            put(i);
        }
        for (int i = 0; i < objects.length; i++) {
            check(i);
        }
    }

    public static void main(String[] args) throws InterruptedException {
        int threads = Integer.parseInt(args[1]);
        int rounds = Integer.parseInt(args[2]);
        int count = (int) (Long.parseLong(args[0]) * (1 << 20) / MEAN_BYTES / threads);
        Verified[] parts = new Verified[threads];
        Thread[] running = new Thread[threads];
        for (int t = 0; t < threads; t++) {
            int number = t;
            running[t] = new Thread(() -> {
                Verified part = new Verified(count, number);
                part.run(rounds);
                parts[number] = part;
            });
            running[t].setUncaughtExceptionHandler((thread, error) -> {
                System.err.println(error);
                Runtime.getRuntime().halt(1);
            });
            running[t].start();
        }
        for (int t = 0; t < threads; t++) {
            running[t].join();
            System.out.println(t + " " + parts[t].sum);
        }
        long collections = 0;
        for (GarbageCollectorMXBean bean : ManagementFactory.getGarbageCollectorMXBeans()) {
            collections += bean.getCollectionCount();
        }
        System.err.println(collections);
    }
}
