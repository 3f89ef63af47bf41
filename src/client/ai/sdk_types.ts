import type {
  LanguageModelV3,
  LanguageModelV3CallOptions,
  LanguageModelV3Content,
  LanguageModelV3FunctionTool,
  LanguageModelV3GenerateResult,
  LanguageModelV3Message,
  LanguageModelV3Prompt,
  LanguageModelV3StreamPart,
  LanguageModelV3StreamResult,
  SharedV3ProviderMetadata,
  SharedV3ProviderOptions,
  SharedV3Warning,
} from '@ai-sdk/provider';

/*
 * The interface between the AI SDK and its models. The types are those of version 3; version 4 adds parts and one option,
 * and tags the data of files. Code that handles version 4 says so.
 */

/** The version of the interface that a model implements. */
export type Specification = 'v3' | 'v4';

/** A model of a provider package. */
export interface PackageModel extends Omit<LanguageModelV3, 'specificationVersion'> {
  readonly specificationVersion: Specification;
}

export interface CallOptions extends LanguageModelV3CallOptions {
  /** Version 4: how much the model reasons. */
  reasoning?: string | undefined;
}

export type Content = LanguageModelV3Content;
export type FunctionTool = LanguageModelV3FunctionTool;
export type GenerateResult = LanguageModelV3GenerateResult;
export type Message = LanguageModelV3Message;
export type Prompt = LanguageModelV3Prompt;
export type StreamPart = LanguageModelV3StreamPart;
export type StreamResult = LanguageModelV3StreamResult;
export type Metadata = SharedV3ProviderMetadata;
export type ProviderOptions = SharedV3ProviderOptions;
export type Warning = SharedV3Warning;
export type Urls = Record<string, RegExp[]>;
