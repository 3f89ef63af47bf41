import { Argument, Command } from 'commander';
import { terminal } from '../kit/print.js';
import { withUsageErrors } from '../kit/remote_command.js';

/** Each script runs `agentllm __complete` (complete.ts), which prints lines of a word, a tab and its description. */
const SCRIPTS = {
  // Without mapfile and compopt, because macOS has bash 3.2. Names of models may contain colons, at which bash splits.
  bash: `COMP_WORDBREAKS="\${COMP_WORDBREAKS//:/}"
_agentllm() {
  local line word current="\${COMP_WORDS[COMP_CWORD]}"
  COMPREPLY=()
  while IFS= read -r line; do
    word="\${line%%$'\\t'*}"
    if [ "$word" = ":files" ]; then
      while IFS= read -r word; do COMPREPLY+=("$(printf %q "$word")"); done < <(compgen -f -- "$current")
    else
      COMPREPLY+=("$(printf %q "$word")")
    fi
  done < <(agentllm __complete "\${COMP_WORDS[@]:1:COMP_CWORD}" 2>/dev/null </dev/null)
}
complete -F _agentllm agentllm`,
  zsh: `#compdef agentllm
_agentllm() {
  local line
  local -a found
  while IFS= read -r line; do
    if [[ "\${line%%$'\\t'*}" == ":files" ]]; then
      _files
      return
    fi
    found+=("\${\${line%%$'\\t'*}//:/\\\\:}:\${line#*$'\\t'}")
  done < <(agentllm __complete "\${(@)words[2,CURRENT]}" 2>/dev/null </dev/null)
  _describe -o agentllm found
}
compdef _agentllm agentllm`,
  fish: `function __agentllm_complete
  set -l words (commandline -opc) (commandline -ct)
  for line in (agentllm __complete $words[2..-1] 2>/dev/null </dev/null)
    if string match -q ':files*' -- $line
      __fish_complete_path (commandline -ct)
    else
      echo $line
    end
  end
end
complete -c agentllm -f -a '(__agentllm_complete)'`,
} as const;

type Shell = keyof typeof SCRIPTS;

const HELP_TEXT = `
Examples:
  # bash: in ~/.bashrc
  $ eval "$(agentllm completion bash)"

zsh, in ~/.zshrc after compinit:  eval "$(agentllm completion zsh)"
fish, once:                       agentllm completion fish > ~/.config/fish/completions/agentllm.fish

Names of agents, configs, models, providers and credentials are read from the service at AGENTLLM_ADDRESS, or at the
--address on the command line.`;

/** `agentllm completion bash|zsh|fish`: a script for the shell. */
export function completionCommand(): Command {
  return withUsageErrors(new Command('completion'))
    .description('print a script for the shell that completes commands, options and names')
    .addArgument(new Argument('<shell>', 'the shell').choices(Object.keys(SCRIPTS)))
    .addHelpText('after', HELP_TEXT)
    .action((shell: Shell) => terminal.out(SCRIPTS[shell]));
}
