#!/usr/bin/env node
import { StartError } from '../errors.js';
import { stopRequest } from './kit/signals.js';
import { fail, run } from './program.js';

const words = process.argv.slice(2);
const isService = words[0] === 'serve';

// A signal can arrive before the service is loaded. Without a handler, process 1 of a container ignores it.
if (isService || words[0] === 'fake-provider') void stopRequest();

process.stdout.on('error', (error: NodeJS.ErrnoException) => {
  // The service writes nothing to standard output, so it continues when that fails.
  if (isService) return;
  // The reader closed the pipe: `agentllm configs list | head`.
  if (error.code === 'EPIPE') process.exit();
  void fail(new StartError(`standard output cannot be written (${error.code})`));
});
// The error cannot be reported anywhere, and it must not change the exit code.
process.stderr.on('error', () => {});

await run(words);
