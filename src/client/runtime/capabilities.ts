import type { ResolutionHop } from '../resolution_types.js';

/** What a call needs from a model. */
export interface CallNeeds {
  /** The model can call tools. */
  readonly functions?: boolean | undefined;
  /** The call requires the model to call a tool. */
  readonly forcedToolChoice?: boolean | undefined;
  /** The prompt has images. */
  readonly vision?: boolean | undefined;
  /** The response must match a JSON schema. */
  readonly structuredOutput?: boolean | undefined;
  /** The prompt ends with the start of the response. */
  readonly prefill?: boolean | undefined;
  /** The call continues a conversation that is stored at the provider of the first hop, under its key. */
  readonly storedConversation?: boolean | undefined;
}

/**
 * The name of the first need that a model certainly does not meet; undefined if it may meet all. An unknown fact is not a
 * no. A schema can also be sent as a tool, so only a model without both lacks it.
 */
export function missingCapability({ model }: Pick<ResolutionHop, 'model'>, needs: CallNeeds): string | undefined {
  const lacks = {
    functions: model.supports_functions === false,
    forced_tool_choice: model.supports_forced_tool_choice === false,
    vision: model.supports_vision === false,
    structured_output: model.supports_structured_output === false && model.supports_functions === false,
    prefill: model.supports_prefill === false,
  };
  const needed = {
    functions: needs.functions,
    forced_tool_choice: needs.forcedToolChoice,
    vision: needs.vision,
    structured_output: needs.structuredOutput,
    prefill: needs.prefill,
  };
  return Object.entries(lacks).find(([name, isMissing]) => isMissing && needed[name as keyof typeof needed])?.[0];
}
