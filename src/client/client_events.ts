import type { Receipt } from '../../gen/ts/agentllm/v1/receipt.js';
import type { Change } from './change.js';
import type { ClientState } from './state.js';
import type { ClientWarning } from './warning.js';

/** The events of a resident client, with the value that each listener receives. */
export interface ClientEvents {
  /** The status has changed. */
  readonly state: ClientState;
  /** The held state has changed. */
  readonly change: Change;
  /** A problem that does not stop the client. `warnings` contains the last ones. */
  readonly warning: ClientWarning;
  /** The call of a model has ended; emitted once for each call, whatever its outcome. */
  readonly receipt: Receipt;
}
