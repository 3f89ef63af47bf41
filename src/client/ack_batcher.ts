import {
  type Acknowledgement,
  AgentLLMConfigWatchServiceService,
  AcknowledgeRevisionRequest as Request,
} from '../../gen/ts/agentllm/v1/agent_llm_config_watch_service.js';
import { maxElements } from '../limits.js';
import type { TlsOptions } from './channel.js';
import type { Connection } from './connection.js';
import type { Token } from './headers.js';

const METHOD = AgentLLMConfigWatchServiceService.acknowledgeRevision;
/** How long the first acknowledgement waits for others to travel with. */
const GATHER_MS = 50;
const MAX_ACKNOWLEDGEMENTS = maxElements['agentllm.v1.AcknowledgeRevisionRequest.acknowledgements'];

interface Letter {
  readonly connection: Connection;
  readonly acknowledgement: Acknowledgement;
  readonly ms: number;
  resolve(): void;
  reject(error: unknown): void;
}

/**
 * Sends the acknowledgements of the clients of one process together: a thousand of them that hear of one change would
 * make a thousand calls, which cost as much as the change did.
 */
export class AckBatcher {
  private letters: Letter[] = [];
  private timer: NodeJS.Timeout | undefined;
  /** What is under way, by whose connection. */
  private readonly calls = new Map<Connection, AbortController>();

  /** Resolves when the service has heard it; by one of the connections of those who send together. */
  send(connection: Connection, acknowledgement: Acknowledgement, ms: number): Promise<void> {
    return new Promise((resolve, reject) => {
      this.letters.push({ connection, acknowledgement, ms, resolve, reject });
      this.timer ??= setTimeout(() => this.flush(), GATHER_MS).unref();
    });
  }

  /** Ends what goes over a connection that is being closed; it goes over another one's. */
  leave(connection: Connection): void {
    this.calls.get(connection)?.abort();
  }

  private flush(): void {
    this.timer = undefined;
    const { letters } = this;
    this.letters = [];
    for (let at = 0; at < letters.length; at += MAX_ACKNOWLEDGEMENTS)
      void this.carry(letters.slice(at, at + MAX_ACKNOWLEDGEMENTS));
  }

  private async carry(letters: readonly Letter[]): Promise<void> {
    const [first, last] = [letters[0] as Letter, letters.at(-1) as Letter];
    const acknowledgements = letters.map(({ acknowledgement }) => acknowledgement);
    try {
      await this.post(first, acknowledgements).catch((error) => {
        if (last.connection === first.connection || error.code !== 'CANCELLED') throw error;
        return this.post(last, acknowledgements);
      });
      for (const { resolve } of letters) resolve();
    } catch (error) {
      for (const { reject } of letters) reject(error);
    }
  }

  private async post({ connection, ms }: Letter, acknowledgements: readonly Acknowledgement[]): Promise<void> {
    const call = new AbortController();
    this.calls.set(connection, call);
    // A deadline of grpc-js would keep the process alive for as long as it runs.
    const timer = setTimeout(() => call.abort(), ms).unref();
    const bytes = METHOD.requestSerialize(Request.fromPartial({ acknowledgements: [...acknowledgements] }));
    try {
      await connection.call(METHOD, () => ({ bytes }), { signal: call.signal, deadlineMs: Number.POSITIVE_INFINITY });
    } finally {
      clearTimeout(timer);
      if (this.calls.get(connection) === call) this.calls.delete(connection);
    }
  }
}

/** What makes two clients the same to the service. */
interface Sender {
  readonly address: string;
  readonly token: Token | undefined;
  readonly tls: boolean | TlsOptions | undefined;
}

const outboxes: (Sender & { readonly outbox: WeakRef<AckBatcher> })[] = [];

/** The outbox of all clients with this address, token and certificate. */
export function ackBatcherOf({ address, token, tls }: Sender): AckBatcher {
  for (const [at, { outbox }] of [...outboxes.entries()].reverse()) if (!outbox.deref()) outboxes.splice(at, 1);
  const same = outboxes.find((one) => one.address === address && one.token === token && one.tls === tls);
  const known = same?.outbox.deref();
  if (known) return known;
  const outbox = new AckBatcher();
  outboxes.push({ address, token, tls, outbox: new WeakRef(outbox) });
  return outbox;
}
