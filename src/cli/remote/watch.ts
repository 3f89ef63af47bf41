import { randomUUID } from 'node:crypto';
import type { AgentRef } from '../../../gen/ts/agentllm/v1/agent.js';
import type { WatchStarted } from '../../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { AckBatcher } from '../../client/ack_batcher.js';
import { Acknowledger } from '../../client/acknowledgements.js';
import type { Connection } from '../../client/connection.js';
import type { AgentLLMError } from '../../client/index.js';
import type { Batch } from '../../client/view.js';
import { type WatchObserver, WatchStream } from '../../client/watch_stream.js';
import { limits } from '../../limits.js';
import { version } from '../../package.js';
import { DEFAULT_TIMEOUT_MS, openStream } from '../kit/connection.js';
import { Exit } from '../kit/error_output.js';
import { UsageError } from '../kit/inputs.js';
import { counted, say, toJson, visible } from '../kit/print.js';
import type { Call, RemoteCommand } from '../kit/remote_command.js';
import { agent, integer, list, said, word } from '../kit/values.js';
import { changeBlock } from './changes.js';
import { changeRecordOfDiff, Heard, type WatchDiff } from './watch_diff.js';

/** `agentllm watch`: changes as they are made. */
export const watch: RemoteCommand = {
  name: 'watch',
  about: 'follow changes as they are made: who, how, why, and what is different; until Ctrl-C',
  more: `Connects again by itself when the service goes away, and then shows what was missed. Shows up in agentllm watchers. With
--json a line of JSON for each revision: resume_token in it goes on behind it with --since. Exit code 1: --for was over
before --count was reached.`,
  inputs: [
    { name: '[agents...]', to: 'agents', kind: list(agent), help: 'the agents, by names or ids (default: all)' },
    { name: 'all', to: 'all_agents', kind: said, help: 'all agents, also those to come; the default' },
    { name: 'count', kind: integer, help: 'end after so many revisions' },
    { name: 'for', kind: { ...integer, value: 'ms' }, help: 'end after so long' },
    {
      name: 'since',
      to: 'resume_token',
      kind: word('token'),
      help: 'go on behind this resume_token, of the same agents',
    },
  ],
  examples: [
    ['agentllm watch', 'everything'],
    ['agentllm watch trader market_analyst --json', 'two agents, for a program'],
    ['agentllm watch trader --for 1000', 'for a second'],
  ],
  next: 'agentllm history shows what was changed before, agentllm watchers who else follows',
  async run(call) {
    for (const name of ['count', 'for'])
      if ((call.local<number>(name) ?? 1) < 1)
        throw UsageError.of([{ typed: `--${name} ${call.local(name)}`, description: 'must be at least 1' }]);
    const { message } = call.given;
    if ('agents' in message && 'all_agents' in message) throw new UsageError('name agents, or give --all');
    const connection = openStream(call.given.local);
    // An open stream does not keep the process alive; a timer does.
    const alive = setInterval(() => {}, limits.maxTimerMs);
    const tail = new Tail(call, connection);
    try {
      return await tail.ended;
    } finally {
      await tail.close();
      await connection.close();
      clearInterval(alive);
    }
  },
};

/** Prints what a stream brings, until it has printed enough or somebody ends it. */
class Tail implements WatchObserver {
  /** The exit code; rejects with what time will not mend. */
  readonly ended: Promise<number>;
  token: string;
  private readonly heard = new Heard();
  private readonly names: readonly string[];
  private readonly acknowledger: Acknowledger;
  private readonly follow: WatchStream;
  private readonly timers: NodeJS.Timeout[] = [];
  private printed = 0;
  /** Why there is no stream; undefined while there is one. */
  private failure: AgentLLMError | undefined;
  private begun = false;
  private resolve: (code: number) => void = () => {};
  private reject: (error: AgentLLMError) => void = () => {};
  private readonly interrupted = () => this.resolve(Exit.done);

  constructor(
    private readonly call: Call,
    connection: Connection,
  ) {
    const { message, local } = call.given;
    const agents = (message['agents'] ?? []) as AgentRef[];
    this.names = agents.map(({ name, id }) => name ?? `#${id}`);
    this.token = (message['resume_token'] as string | undefined) ?? '';
    this.ended = new Promise((resolve, reject) => {
      this.resolve = resolve;
      this.reject = reject;
    });
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, this.interrupted);
    const client_id = randomUUID();
    const who = { client_id, client_name: 'agentllm watch', client_version: version };
    // It has what it prints, and a write that waits for adoption is not to wait for it.
    this.acknowledger = new Acknowledger(connection, client_id, new AckBatcher());
    this.follow = new WatchStream(connection, { agents, all_agents: agents.length === 0, ...who }, this);
    const timeoutMs = (local.get('timeout') as number | undefined) ?? DEFAULT_TIMEOUT_MS;
    this.timers.push(setTimeout(() => !this.begun && this.failure && this.reject(this.failure), timeoutMs));
  }

  async close(): Promise<void> {
    for (const timer of this.timers) clearTimeout(timer);
    for (const signal of ['SIGINT', 'SIGTERM'] as const) process.off(signal, this.interrupted);
    if (this.begun && !this.failure) await this.acknowledger.end();
    this.acknowledger.stop();
    await this.follow.close();
  }

  started({ resumed }: WatchStarted): void {
    this.acknowledger.restart();
    if (this.begun) say.err(resumed ? 'connected again, without a gap' : 'connected again');
    else if (resumed) say.err(`watching ${this.watched()}, behind the token`);
    this.failure = undefined;
    if (!this.begun) this.begin();
  }

  batch(batch: Batch): void {
    const happened = this.heard.take(batch);
    this.token = batch.token;
    this.acknowledger.apply(batch.revision, false);
    if (batch.snapshot && happened.length === 0) this.introduce(batch.revision);
    else this.print(batch, happened);
  }

  bookmark(revision: bigint, token: string): void {
    this.token = token;
    this.acknowledger.apply(revision, true);
  }

  broken(error: AgentLLMError, lasting: boolean): void {
    if (lasting) this.reject(error);
    else if (this.begun && !this.failure) say.err(`connection lost (${visible(error.message)}); trying again`);
    this.failure = error;
  }

  startOver(): void {
    // A place that somebody has named is not given up in silence.
    if (!this.begun) setImmediate(() => this.failure && this.reject(this.failure));
    this.token = '';
  }

  private begin(): void {
    this.begun = true;
    const ms = this.call.local<number>('for');
    const unmet = this.call.local<number>('count') !== undefined;
    if (ms !== undefined)
      this.timers.push(
        setTimeout(() => this.resolve(unmet ? Exit.refused : Exit.done), Math.min(ms, limits.maxTimerMs)),
      );
  }

  private watched(): string {
    return this.names.length === 0 ? 'all agents' : this.names.map(visible).join(', ');
  }

  private introduce(revision: bigint): void {
    const what = this.names.length === 0 ? `all ${counted(this.heard.agentCount, 'agent')}` : this.watched();
    say.err(`watching ${what} from revision ${revision}`);
    for (const name of this.heard.missing) say.err(`there is no agent ${visible(name)} yet`);
  }

  private print({ revision, token, cause, snapshot }: Batch, happened: readonly WatchDiff[]): void {
    // What came in the same moment as the last one that was asked for.
    if (this.printed === this.call.local<number>('count')) return;
    if (this.call.json) {
      const changes = happened.map(({ before: _, ...one }) => one);
      say.out(toJson({ revision, resume_token: token, ...(cause && { cause }), snapshot, changes }, 0));
    } else {
      const gap = { about: 'all', what: 'read anew: what was changed since, by whom and why, is in agentllm history' };
      const deeds = happened.map(changeRecordOfDiff);
      say.out(`${changeBlock({ revision, ...cause, deeds: snapshot ? [gap, ...deeds] : deeds })}`);
    }
    this.printed++;
    if (this.printed === this.call.local<number>('count')) this.resolve(Exit.done);
  }
}
