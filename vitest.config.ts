import { chmodSync, mkdirSync, statfsSync } from 'node:fs';
import { pathToFileURL } from 'node:url';
import { defineConfig, type Plugin } from 'vitest/config';

/** Memory that a test run may use for its databases. */
const MEMORY_BYTES = 4 * 1024 ** 3;
const MEMORY = '/dev/shm';

// Every test of the embedded engine copies a database of 40 MB, which takes 0.1 s in memory and 0.6 s on a disk.
if (process.env['TMPDIR'] === undefined && freeBytes(MEMORY) > MEMORY_BYTES) {
  process.env['TMPDIR'] = `${MEMORY}/agentllm-tests`;
  mkdirSync(process.env['TMPDIR'], { recursive: true });
  // Some tests start processes of other users.
  chmodSync(process.env['TMPDIR'], 0o1777);
}

function freeBytes(directory: string): number {
  try {
    const { bavail, bsize } = statfsSync(directory);
    return bavail * bsize;
  } catch {
    return 0;
  }
}

/** Tests that need no database, no running service and no build, and that take together at most 20 s on two cores. */
const UNIT = [
  'test/{abort,architecture,concurrency_limiter,config,contract,log,metrics,readme,time_slice}.test.ts',
  'test/api/dispatch/{access_log,call,open_streams,request_shape,token_bucket}.test.ts',
  'test/api/messages/**/*.test.ts',
  'test/cli/kit/print.test.ts',
  'test/cli/remote/experiments/!(commands).test.ts',
  'test/client/{ack_batcher,acknowledgements,backoff}.test.ts',
  'test/client/runtime/**/!(stream).test.ts',
  'test/client/usage/*.test.ts',
  'test/domain/**/!(independent_statistics).test.ts',
  'test/feed/{live_index,replay,validators}.test.ts',
  'test/net/{listen,request_budget,unread_responses}.test.ts',
  'test/grpc/{connection,request_guard,shared_frames}.test.ts',
  'test/http/routes.test.ts',
  'test/providers/**/!(check_provider|egress).test.ts',
  'test/store/embedded/wire_frames.test.ts',
  'test/store/maintenance/seed_data.test.ts',
  'test/store/write/write_queue.test.ts',
];

/**
 * Attacks by one caller, during which another caller measures how long it waits. They run one at a time: beside other tests
 * the wait would include the work of those (issue 13: 0.2 s alone, 1.4 s on a busy machine).
 */
const FAIRNESS = [
  'test/faults/abuse.test.ts',
  'test/hostile/{pipelined_requests,snapshot_disconnects,unfinished_requests,unread_responses,unread_watches}.test.ts',
];

/** Kill rounds, floods, replicas and load: tests that break things for many seconds. */
const FAULTS = [
  'test/faults/**/*.test.ts',
  'test/hostile/**/*.test.ts',
  // Every fault of a provider, at every hop.
  'test/client/ai/fault_matrix.test.ts',
  'test/api/handlers/check_deadlines.test.ts',
  // Processes that are killed or stopped, broken streams, failing writes and full disks.
  'test/client/{retry,watch_stream}.test.ts',
  'test/atomic_file.test.ts',
  'test/admin/admin.test.ts',
  'test/cli/local/backup.test.ts',
  'test/main/{log_streams,signals}.test.ts',
  'test/store/embedded/{data_directory,unresponsive_engine}.test.ts',
  // On several replicas, with many writers, or with changes during a check.
  'test/api/handlers/{checks_under_change,encryption,wait_for_adoption}.test.ts',
  'test/feed/{moved_watchers,watcher_registry}.test.ts',
  'test/store/write/concurrent_writes.test.ts',
];

/**
 * Tests that run what users install: the built program, the packed packages, the transcripts of the documentation, and the
 * import and the upgrade of an existing database.
 */
const END_TO_END = [
  'test/{bench,bootstrap_token,docs}.test.ts',
  'test/cli/help.test.ts',
  'test/cli/local/{doctor,serve}.test.ts',
  'test/cli/remote/{completion,rotation,tls}.test.ts',
  'test/client/{ai/graders,ai/request_types,package,sdk_packages}.test.ts',
  'test/domain/experiments/independent_statistics.test.ts',
  'test/http/openapi_clients.test.ts',
  'test/main/{data_directory,packaging}.test.ts',
  'test/store/maintenance/{database_import,migrate}.test.ts',
  'test/examples/**/*.test.ts',
];

/**
 * Starts the thread of the embedded engine from the build. From source it has to load a compiler first, so that an engine
 * takes 1.0 s of processor time to open instead of 0.5 s.
 */
const builtEngineWorker: Plugin = {
  name: 'built-engine-worker',
  enforce: 'pre',
  transform(code, id) {
    if (!id.endsWith('/src/store/embedded/worker_link.ts')) return undefined;
    const built = pathToFileURL('dist/src/store/embedded/worker_link.js').href;
    return code.replaceAll('import.meta.url', JSON.stringify(built));
  },
};

const setupFiles = ['test/support/real_timers.ts'];

export default defineConfig({
  test: {
    // More than cores: many tests wait for timers and processes.
    maxWorkers: 3,
    projects: [
      // The files share the modules of a worker: evaluating them anew for each takes a third of the time.
      {
        test: { name: 'unit', include: UNIT, isolate: false, setupFiles, testTimeout: 60_000, hookTimeout: 60_000 },
      },
      {
        plugins: [builtEngineWorker],
        test: {
          ...onStores(),
          name: 'service',
          isolate: false,
          include: ['test/**/*.test.ts'],
          exclude: [...UNIT, ...FAULTS, ...FAIRNESS, ...END_TO_END],
        },
      },
      {
        plugins: [builtEngineWorker],
        test: {
          ...onStores(),
          name: 'faults',
          include: FAULTS,
          exclude: FAIRNESS,
          maxWorkers: 2,
          sequence: { groupOrder: 1 },
        },
      },
      {
        plugins: [builtEngineWorker],
        test: { ...onStores(), name: 'fairness', include: FAIRNESS, maxWorkers: 1 },
      },
      { plugins: [builtEngineWorker], test: { ...onStores(), name: 'e2e', include: END_TO_END } },
      ...onAi7(process.env['AI7_MODULES']),
    ],
  },
});

/** Runs tests of model calls with `ai` 7, which is installed in a directory; test/client/sdk_packages.test.ts does that. */
function onAi7(modules: string | undefined) {
  if (modules === undefined) return [];
  const include = ['test/client/ai/{experiments,failover,fault_matrix,language_model}.test.ts'];
  const env = { AGENTLLM_TEST_SPECIFICATION: 'v4' };
  const alias = [{ find: /^(ai|@ai-sdk\/.*)$/, replacement: `${modules}/$1` }];
  return [{ resolve: { alias }, test: { name: 'ai7', include, env, isolate: false, testTimeout: 60_000 } }];
}

/** For tests that start real databases and real processes. */
function onStores() {
  return {
    // V8 spends longer on optimizing the WebAssembly of the embedded engine than tests gain from it.
    execArgv: ['--liftoff-only', '--max-semi-space-size=64'],
    setupFiles,
    testTimeout: 60_000,
    hookTimeout: 60_000,
    globalSetup: ['test/support/global_setup.ts', 'test/support/say_skipped.ts'],
  };
}
