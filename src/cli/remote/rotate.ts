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
/** A step waits its turn behind the writes of everybody else. */
const SILENCE_MS = 60_000;

/** `agentllm key rotate`: stored keys under the first of ENCRYPTION_KEY. */
export const rotate: RemoteCommand = {
  name: 'rotate',
  about: 'encrypt every stored API key anew, under the first key of ENCRYPTION_KEY',
  more: `Reads and writes go on meanwhile, and what is shown of a config does not change. Ended by whatever, it is called again
and goes on with what is left. Without downtime, also with several services on one database:
  1. ENCRYPTION_KEY=<old>,<new> on every service, one after the other: each can read what is under the new key
  2. ENCRYPTION_KEY=<new>,<old> on every service: each encrypts with the new one
  3. agentllm key rotate
  4. agentllm key status shows nothing under the old key
  5. ENCRYPTION_KEY=<new> on every service; keep the old one for as long as a backup from before is kept
Exit code 1: keys were left under another key, unless --skip-unreadable said that they may be.`,
  inputs: [
    {
      name: 'skip-unreadable',
      to: 'skip_unreadable',
      kind: flag,
      help: 'leave keys whose encryption key the service does not have, and go on with the others',
    },
  ],
  examples: [
    ['agentllm key rotate', 'all of them, behind step 2'],
    ['agentllm key rotate --json', 'a line of JSON for each step, for a program'],
  ],
  next: 'agentllm key status shows what is under which key',
  timeoutMs: SILENCE_MS,
  async run(call) {
    const display = new ProgressDisplay(call.json);
    const last = await readProgress(call, (progress) => display.show(progress));
    display.clear();
    if (!call.json) terminal.out(last ? summaryOf(last) : 'stopped; agentllm key rotate goes on with what is left');
    if (!last) return Exit.refused;
    const wanted = call.inputs.message['skip_unreadable'] ? last.done + last.unreadable : last.done;
    return wanted === last.total ? Exit.done : Exit.refused;
  },
};

/** Shows every message; the last one, or undefined when somebody has interrupted it. */
async function readProgress(call: Call, show: (progress: Progress) => void): Promise<Progress | undefined> {
  const silenceMs = call.local<number>('timeout') ?? SILENCE_MS;
  const request = RotateEncryptionKeyRequest.fromPartial(call.request());
  const connection = openStream(call.inputs.local);
  const controller = new AbortController();
  const interrupt = () => controller.abort('interrupted');
  // It keeps the process alive too, which a stream does not.
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
    const text = `No answer from the service within ${silenceMs} ms`;
    throw AgentLLMError.here(text, { code: 'DEADLINE_EXCEEDED', method: METHOD.path.slice(1) });
  } finally {
    clearTimeout(silenceTimer);
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, interrupt);
    await connection.close();
  }
}

const BAR = 30;
const LINE_INTERVAL_MS = 1_000;

/** How far it is: a line that is redrawn at a terminal, a line now and then elsewhere, or one of JSON each time. */
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
      terminal.err(`encrypting ${counted(total - unreadable, 'key')} anew under key ${key_id}`);
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
  if (total === 0) return `nothing to do: no stored key is under another key than ${key_id}`;
  const left = total - done - unreadable;
  const lines = [`${done} of ${counted(total, 'key')} encrypted anew under key ${key_id}`];
  if (unreadable > 0)
    lines.push(`${counted(unreadable, 'key')} left that cannot be decrypted: agentllm key status shows where`);
  if (left > 0)
    lines.push(
      `${counted(left, 'key')} stored under an older key meanwhile, by a service that encrypts with it: give all the same first key, and rotate again`,
    );
  return lines.join('\n');
}
