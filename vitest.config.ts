import { defineConfig } from 'vitest/config';

/** Tests that need no database, no running service and no build. */
const UNIT = [
  'test/domain/**/*.test.ts',
  'test/providers/**/*.test.ts',
  'test/{contract,house,log,metrics,readme,seed_data,settings,write_queue}.test.ts',
  'test/cli/print.test.ts',
  'test/embedded/wire_frames.test.ts',
  'test/http/routes.test.ts',
  'test/watch/validators.test.ts',
];

/** Kill rounds, floods, replicas and load: tests that break things for many seconds. */
const FAULTS = ['test/faults/**/*.test.ts', 'test/replicas.test.ts', 'test/security/frames.test.ts'];

export default defineConfig({
  test: {
    maxWorkers: 2,
    projects: [
      // The files share the modules of a worker: evaluating them anew for each takes a third of the time.
      { test: { name: 'unit', include: UNIT, isolate: false } },
      { test: { ...onStores(), name: 'service', include: ['test/**/*.test.ts'], exclude: [...UNIT, ...FAULTS] } },
      { test: { ...onStores(), name: 'faults', include: FAULTS } },
    ],
  },
});

/** For tests that start real databases and real processes. */
function onStores() {
  return { testTimeout: 60_000, hookTimeout: 60_000, globalSetup: ['test/support/global_setup.ts'] };
}
