import { limits } from '../limits.js';
import type { Database } from './database.js';
import { ReplicaState } from './replica_state.js';
import { commitTogether } from './write/commit.js';
import type { CheckedWrite } from './write/planned_write.js';
import { WriteQueue } from './write/write_queue.js';

/** The state of a replica and the queue of its writes. */
export class Store extends ReplicaState {
  readonly writeQueue: WriteQueue<CheckedWrite, Uint8Array>;

  constructor(database: Database) {
    super(database);
    const { batchWrites: items, batchChanges: weight, maxCallMs: longestWaitMs } = limits;
    this.writeQueue = new WriteQueue({ items, weight, longestWaitMs }, (writes) => commitTogether(this, writes));
  }
}
