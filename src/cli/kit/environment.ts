/** An environment variable of the command line tool, trimmed; undefined when it is unset or empty. */
export const variable = (name: `AGENTLLM_${string}`): string | undefined => process.env[name]?.trim() || undefined;
