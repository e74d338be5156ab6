import { defineConfig } from 'vitest/config';

export default defineConfig({
  // The guest and the host may run at the same time; neither keeps anything in the checkout.
  cacheDir: '/tmp/rpal-vitest',
  test: {
    projects: [
      {
        test: { name: 'unit', include: ['test/unit/**/*.test.ts'], testTimeout: 20_000 },
      },
      {
        // Runs inside the guest only: `npm test`, or `npm run vm -- npx vitest run --project guest`.
        test: {
          name: 'guest',
          include: ['test/guest/**/*.test.ts'],
          // One worker thread for all files: another process costs seconds there, and Vitest gives a
          // worker one minute to start.
          pool: 'threads',
          isolate: false,
          // One or two slow CPUs: files that run at once would only disturb each other's timing.
          fileParallelism: false,
          // For tests that hang. Programs that do are noticed before (test/guest/program.ts).
          testTimeout: 300_000,
          hookTimeout: 300_000,
        },
      },
    ],
  },
});
