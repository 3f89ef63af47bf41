import { AgentHandle, type Holder, type WatchedResidentAgent } from './agent.js';
import type { Change, Changes } from './change.js';
import type { ListenOptions } from './events.js';

/** A holder of agents that reports their changes. */
export interface WatchedHolder extends Holder {
  on(event: 'change', listener: (change: Change) => unknown, options?: ListenOptions): () => void;
  changes(options?: ListenOptions): Changes;
}

/** The handle of an agent of a resident client, with its changes. */
export class WatchedHandle extends AgentHandle implements WatchedResidentAgent {
  constructor(
    name: string,
    private readonly client: WatchedHolder,
  ) {
    super(name, client);
  }

  onChange(listener: (change: Change) => unknown, options?: ListenOptions): () => void {
    const filtered = (change: Change) => (this.concerns(change) ? listener(change) : undefined);
    return this.client.on('change', filtered, options);
  }

  changes(options?: ListenOptions): AsyncIterableIterator<Change> {
    return this.client.changes(options).only((change) => this.concerns(change));
  }

  private concerns({ agents, catalogue }: Change): boolean {
    return catalogue || agents.includes(this.name);
  }
}
