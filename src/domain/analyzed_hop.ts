import type { ApiKeyState } from '../../gen/ts/agentllm/v1/agent_llm_config.js';
import type { Adaptation, SentParameter } from './adapt.js';
import type { ChainHop } from './chain.js';
import type { StoredKey } from './key_choice.js';
import type { ParameterValues } from './parameters.js';
import type { HopPrice } from './price.js';
import type { Model, Provider } from './rows.js';

/** A hop of a chain with everything that determines its call, whether it is usable or not. */
export interface AnalyzedHop {
  readonly planned: ChainHop;
  readonly provider: Provider | undefined;
  readonly model: Model | undefined;
  readonly sent: readonly SentParameter[];
  readonly adaptations: readonly Adaptation[];
  /** The values that replace configured ones. */
  readonly overrides: ParameterValues;
  /** The stored key that the hop uses; undefined: its key is in the environment of the caller. */
  readonly key: StoredKey | undefined;
  readonly keyState: ApiKeyState;
  readonly price: HopPrice | undefined;
}
