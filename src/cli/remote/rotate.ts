import {
  CredentialServiceService,
  RotateEncryptionKeyRequest,
  type RotateEncryptionKeyResponse,
} from '../../../gen/ts/agentllm/v1/credential_service.js';
import { AgentLLMError } from '../../client/index.js';
import { openStream } from '../kit/connection.js';
import { Exit } from '../kit/error_output.js';
import { counted, terminal, toJson } from '../kit/print.js';
import type { Call, RemoteCommand } from '../kit/remote_command.js';
import { flag } from '../kit/values.js';

type Progress = RotateEncryptionKeyResponse;

const METHOD = CredentialServiceService.rotateEncryptionKey;
/**
 * Maximum time without a message. It is long, because a batch waits in the write queue after the writes of other
 * callers.
 */
const SILENCE_MS = 60_000;

/** `agentllm key rotate`: re-encrypts all ciphertext with the first key of ENCRYPTION_KEY. */
export const rotate: RemoteCommand = {
  name: 'rotate',
  description: 're-encrypt every stored API key with the first key of ENCRYPTION_KEY',
  more: `Reads and writes continue during a rotation, and the visible fields of configs do not change. An interrupted rotation
continues when the command is run again. Steps without downtime, also with several replicas:
  1. ENCRYPTION_KEY=<old>,<new> on every replica, one after the other: each can decrypt with the new key
  2. ENCRYPTION_KEY=<new>,<old> on every replica: each encrypts with the new key
  3. agentllm key rotate
  4. agentllm key status shows no API keys under the old key
  5. ENCRYPTION_KEY=<new> on every replica; keep the old key as long as a backup needs it
Exit code 1: API keys remain under another key, and --skip-unreadable does not permit it.`,
  inputs: [
    {
      name: 'skip-unreadable',
      to: 'skip_unreadable',
      kind: flag,
      help: 'skip API keys whose encryption key is not in ENCRYPTION_KEY',
    },
  ],
  examples: [
    ['agentllm key rotate', 'all API keys, after step 2'],
    ['agentllm key rotate --json', 'a line of JSON for each batch, for a program'],
  ],
  next: 'agentllm key status shows the number of API keys per encryption key',
  timeoutMs: SILENCE_MS,
  async run(call) {
    const display = new ProgressDisplay(call.json);
    const last = await readProgress(call, (progress) => display.show(progress));
    display.clear();
    if (!call.json)
      terminal.out(last ? summaryOf(last) : 'stopped; agentllm key rotate continues with the remaining keys');
    if (!last) return Exit.failed;
    const processed = call.inputs.message['skip_unreadable'] ? last.done + last.unreadable : last.done;
    return processed === last.total ? Exit.done : Exit.failed;
  },
};

/** Reads the stream and shows each message. Returns the last one, or undefined after an interrupt. */
async function readProgress(call: Call, show: (progress: Progress) => void): Promise<Progress | undefined> {
  const silenceMs = call.local<number>('timeout') ?? SILENCE_MS;
  const request = RotateEncryptionKeyRequest.fromPartial(call.request());
  const connection = openStream(call.inputs.local);
  const controller = new AbortController();
  const interrupt = () => controller.abort('interrupted');
  // The timer also keeps the process running; the stream does not.
  const silenceTimer = setTimeout(() => controller.abort('silent'), silenceMs);
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, interrupt);
  let last: Progress | undefined;
  const onProgress = (progress: Progress) => {
    silenceTimer.refresh();
    last = progress;
    show(progress);
  };
  const encodeRequest = () => ({ bytes: METHOD.requestSerialize(request) });
  try {
    await connection.stream(METHOD, encodeRequest, onProgress, controller.signal);
    return last;
  } catch (error) {
    if (controller.signal.reason === 'interrupted') return undefined;
    if (controller.signal.reason !== 'silent') throw error;
    const text = `No response from the service within ${silenceMs} ms`;
    throw AgentLLMError.here(text, { code: 'DEADLINE_EXCEEDED', method: METHOD.path.slice(1) });
  } finally {
    clearTimeout(silenceTimer);
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, interrupt);
    await connection.close();
  }
}

const BAR = 30;
const LINE_INTERVAL_MS = 1_000;

/** Shows progress: a line that is redrawn at a terminal, a line each second otherwise, or a line of JSON per message. */
class ProgressDisplay {
  private lastLine = performance.now();
  private drawn = false;

  constructor(private readonly json: boolean) {}

  show(progress: Progress): void {
    const { done, unreadable, total, key_id, finished } = progress;
    if (this.json) terminal.out(toJson(progress, 0));
    if (this.json || finished || total === 0) return;
    const processed = done + unreadable;
    if (process.stderr.isTTY) this.draw(`${barOf(processed / total)} ${processed} of ${total}`);
    else if (processed === unreadable)
      terminal.err(`re-encrypting ${counted(total - unreadable, 'key')} with key ${key_id}`);
    else if (performance.now() - this.lastLine > LINE_INTERVAL_MS) {
      this.lastLine = performance.now();
      terminal.err(`${processed} of ${total}`);
    }
  }

  clear(): void {
    if (this.drawn) this.draw('');
  }

  private draw(line: string): void {
    this.drawn = true;
    process.stderr.write(`\r${line}\u001b[K`);
  }
}

const barOf = (part: number): string => {
  const full = Math.round(part * BAR);
  return `[${'#'.repeat(full)}${'.'.repeat(BAR - full)}]`;
};

function summaryOf({ total, done, unreadable, key_id }: Progress): string {
  if (total === 0) return `nothing to do: all stored keys are encrypted with key ${key_id}`;
  const left = total - done - unreadable;
  const lines = [`${done} of ${counted(total, 'key')} re-encrypted with key ${key_id}`];
  if (unreadable > 0)
    lines.push(
      `${counted(unreadable, 'key')} skipped, because they cannot be decrypted: agentllm key status shows them`,
    );
  if (left > 0)
    lines.push(
      `${counted(left, 'key')} stored meanwhile by a replica that encrypts with an older key: set the same first key on all replicas, then rotate again`,
    );
  return lines.join('\n');
}
