import type { ModelFacts as FactsMessage } from '../../gen/ts/agentllm/v1/resolution.js';
import type { Model } from './rows.js';

/** The facts about a model that determine which calls it can serve; undefined is unknown, never no. */
export type ModelFacts = Readonly<FactsMessage>;

/** The facts about a model; all are unknown for a model that is not in the catalogue. */
export const factsOf = (model: Model | undefined): ModelFacts => ({
  context_window_tokens: model?.context_window_tokens ?? undefined,
  max_output_tokens: model?.max_output_tokens ?? undefined,
  supports_functions: model?.supports_functions ?? undefined,
  supports_vision: model?.supports_vision ?? undefined,
  supports_reasoning: model?.supports_reasoning ?? undefined,
  supports_forced_tool_choice: model?.supports_forced_tool_choice ?? undefined,
  supports_prefill: model?.supports_prefill ?? undefined,
  supports_structured_output: model?.supports_structured_output ?? undefined,
});
