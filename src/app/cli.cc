#include "app/cli.h"

#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cmath>
#include <csignal>
#include <cstdio>
#include <cstring>
#include <exception>
#include <filesystem>
#include <new>

#include "app/bus_error.h"
#include "app/commands.h"
#include "base/error.h"
#include "base/progress.h"
#include "base/size.h"
#include "base/text.h"
#include "base/threads.h"
#include "kernels/ops.h"
#include "plan/plan.h"
#include "quant/format.h"
#include "text/tokenizer.h"

namespace nibble::app {
namespace {

std::string called_as;

/// Nobody reads standard output any more (head): a reason to end, and no error.
struct NoReader {};
/// The exit status of what a shell sees killed by SIGPIPE.
constexpr int kNoReaderStatus = 128 + SIGPIPE;

/// Bytes that are no UTF-8 text, as bash reads them: $'a\xff'.
std::string quoted_bytes(std::string_view bytes) {
  std::string out = "$'";
  for (const char c : bytes) {
    const bool plain = c >= ' ' && c <= '~' && c != '\'' && c != '\\';
    out += plain ? std::string(1, c) : fmt::format("\\x{:02x}", static_cast<unsigned char>(c));
  }
  return out + "'";
}

/// The arguments as a shell would take them, in UTF-8.
std::string quoted(int argc, char** argv) {
  std::string out = "nibble";
  for (int i = 1; i < argc; ++i) {
    std::string arg = argv[i];
    if (text::replace_invalid_utf8(arg) != arg) {
      out += " " + quoted_bytes(arg);
      continue;
    }
    const bool plain = !arg.empty() && arg.find_first_of(" \t\n'\"\\$*?[](){}<>|&;#~`!") == std::string::npos;
    if (!plain) {
      std::string escaped;
      for (char c : arg) escaped += c == '\'' ? "'\\''" : std::string(1, c);
      arg = "'" + escaped + "'";
    }
    out += " " + arg;
  }
  return out;
}

/// Where a standard stream is closed, the next file that is opened would get its number, and what is printed
/// would go into that file. What is held in its place can be neither read nor written.
void hold_standard_streams() {
  for (const int stream : {STDIN_FILENO, STDOUT_FILENO, STDERR_FILENO})
    if (fcntl(stream, F_GETFD) < 0 && errno == EBADF)
      (void)::open("/dev/null", stream == STDIN_FILENO ? O_WRONLY : O_RDONLY);
}

/// An error is one line, whatever it quotes.
int complain(std::string text) {
  for (char& c : text)
    if (c == '\n' || c == '\r') c = ' ';
  tell("nibble: " + text);
  return 2;
}

}  // namespace

const std::string& command_text() {
  return called_as;
}

CLI::App* add_command(CLI::App& app, Common& common, const std::string& name, const std::string& what,
                      const std::string& example, std::function<void()> action) {
  CLI::App* command = app.add_subcommand(name, what);
  command->footer("Example:\n  " + example);
  command->add_option("--threads", common.threads, "Threads to use (default: all)")
      ->check(in_range(1, 4096))
      ->type_name("N");
  command->add_flag("--quiet", common.quiet, "No progress lines");
  command->callback([&common, action = std::move(action)] {
    if (common.threads > 0) set_num_threads(common.threads);
    Progress::enable(!common.quiet);
    action();
  });
  return command;
}

void print(const std::string& text) {
  if (std::fwrite(text.data(), 1, text.size(), stdout) == text.size() && std::fflush(stdout) == 0) return;
  if (errno == EPIPE) throw NoReader();
  fail("cannot write to standard output: {}", std::strerror(errno));
}

void print_written(const std::string& path, const std::string& text) {
  try {
    print(text);
  } catch (const Error& error) {
    fail("{}; {} is written and complete", error.what(), path);
  }
}

void print_json(const io::Json& json) {
  print(io::dump_json(json) + "\n");
}

CLI::Validator in_range(int64_t low, int64_t high) {
  return CLI::Validator(
      [low, high](const std::string& text) {
        int64_t value = 0;
        const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
        const bool fits =
            status == std::errc() && end == text.data() + text.size() && value >= low && value <= high;
        return fits ? "" : fmt::format("{} is no whole number from {} to {}", printable(text, 40), low, high);
      },
      "");
}

CLI::Validator number_in(double low, double high, std::string_view words) {
  return CLI::Validator(
      [low, high, words](const std::string& text) {
        double value = 0;
        const auto [end, status] = std::from_chars(text.data(), text.data() + text.size(), value);
        const bool fits =
            status == std::errc() && end == text.data() + text.size() && value >= low && value <= high;
        return fits ? "" : fmt::format("{} is no number {}", printable(text, 40), words);
      },
      "");
}

CLI::Validator one_of(std::vector<std::string> words) {
  return CLI::Validator(
      [words = std::move(words)](const std::string& text) {
        const bool known = std::find(words.begin(), words.end(), text) != words.end();
        return known ? "" : fmt::format("{} is none of {}", printable(text, 40), fmt::join(words, ", "));
      },
      "");
}

CLI::Option* add_size(CLI::App* command, const std::string& name, int64_t& bytes, const std::string& help) {
  return command
      ->add_option_function<std::string>(
          name, [&bytes](const std::string& text) { bytes = *parse_size(text); }, help)
      ->check(CLI::Validator(
          [](const std::string& text) {
            return parse_size(text)
                       ? ""
                       : fmt::format("{} is no size, such as 4GiB, 500 MB or 0.5GB, from 1 byte to 4 EiB",
                                     printable(text, 40));
          },
          ""))
      ->type_name("SIZE");
}

void add_model(CLI::App* command, std::string& model, const std::string& also) {
  command->add_option("MODEL", model, "Checkpoint folder, or hub name in the local cache" + also)->required();
}

void add_data(CLI::App* command, std::vector<std::string>& data, int64_t& window) {
  command->add_option("--data", data, "samples.jsonl, text jsonl or folder of pictures; may be repeated")
      ->type_name("FILE");
  command->add_option("--window", window, "Tokens of a window that plain texts are cut into")
      ->check(in_range(2, 1 << 20))
      ->type_name("N")
      ->capture_default_str();
}

void add_max_new_tokens(CLI::App* command, int64_t& tokens) {
  command->add_option("--max-new-tokens", tokens, "Longest answer, in tokens")
      ->check(in_range(1, 1 << 20))
      ->type_name("N")
      ->capture_default_str();
}

void add_compute(CLI::App* command, Common& common) {
  command
      ->add_option(
          "--compute", common.compute,
          "Matrix products: f32 (the reference), or bf16 (the default for models from 500 MB where the "
          "CPU has AMX or AVX512-BF16)")
      ->check(one_of({"f32", "bf16"}))
      ->type_name("TYPE");
}

CLI::Option* add_budget(CLI::App* command, std::string& budget) {
  return command
      ->add_option("--budget", budget,
                   fmt::format("10% (over all-4-bit), 1.81GiB, 4.6bpw, kl:0.001 (nats), match (what bf16 "
                               "activations cost) (default: {})",
                               kDefaultBudget))
      ->check([](const std::string& text) { return text.empty() ? "a budget must be given" : ""; })
      ->type_name("B");
}

void add_policy(CLI::App* command, std::string& budget, std::string& policy) {
  add_budget(command, budget);
  std::string help = "How linears are chosen (default: dynamic):";
  for (const auto& p : plan::policies()) help += fmt::format("\n{}: {}", p.name, p.help);
  command->add_option("--policy", policy, help)->type_name("P");
}

void add_json_flag(CLI::App* command, Common& common) {
  command->add_flag("--json", common.json, "Print JSON for machines");
}

void add_calibration(CLI::App* command, CalibrationOptions& options) {
  command
      ->add_option(
          "--rounding", options.rounding,
          "Codes of NF4: plain (bitsandbytes' own), search, feedback (default: feedback for policy dynamic, "
          "plain for others)")
      ->check(one_of({"plain", "search", "feedback"}))
      ->type_name("R");
  command
      ->add_option("--damping", options.damping,
                   "VISION,TEXT: damping of the statistics that search and feedback round by")
      ->type_name("D")
      ->capture_default_str();
  command->add_flag_callback(
      "--no-guard", [&options] { options.guard = false; },
      "Measure and round by the data alone: without --no-guard, some of nibble's own texts of many kinds "
      "count in rounding as well, and its pictures where the model takes some and the data hold none");
  command->add_option("--mix", options.mix, "Share of vision tokens against text tokens in these statistics")
      ->check(number_in(0, 1, "from 0 to 1"))
      ->type_name("SHARE")
      ->capture_default_str();
  command
      ->add_option(
          "--effort", options.effort,
          "Groups run alone in 4 bits: none, auto (a third of them, where the plan could change), full")
      ->check(one_of({"none", "auto", "full"}))
      ->type_name("E")
      ->capture_default_str();
  add_size(command, "--memory", options.memory,
           "Memory for hidden states (with less, more passes), and for the matrices of rounding (with less, "
           "the widest "
           "inputs have sums of squares in their place)")
      ->default_str("4GiB, and half of the machine's");
  command
      ->add_option_function<std::string>(
          "--fuse", [&options](const std::string& text) { options.fuse = text == "on"; },
          "off: linears that serving engines fuse (q/k/v, gate/up) may be stored differently")
      ->check(one_of({"on", "off"}))
      ->type_name("on|off")
      ->default_str("on");
}

void add_save_every(CLI::App* command, CalibrationOptions& options) {
  command
      ->add_option(
          "--save-every", options.save_every,
          "The least seconds between two saves of how far measuring is, from where the same command goes on")
      ->check(number_in(0, 1e9, "of seconds from 0"))
      ->type_name("S")
      ->capture_default_str();
}

void add_weights(CLI::App* command, std::string& weights) {
  command
      ->add_option("--weights", weights,
                   "VISION,TEXT: what a nat of KL counts on either (default: the worse of the two counts)")
      ->type_name("W");
}

void add_planning(CLI::App* command, PlanningOptions& options) {
  options.calibration.rounding.clear();
  add_calibration(command, options.calibration);
  add_weights(command, options.weights);
  auto* verify = command
                     ->add_option("--verify", options.calibration.verify,
                                  "Judge plans on these inputs (default: a quarter of the data)")
                     ->type_name("FILE");
  command->add_flag("--no-verify", options.no_verify, "Write the predicted plan; all data decides")
      ->excludes(verify);
  command->add_flag("--allow-nonfinite", options.calibration.allow_nonfinite,
                    "Go on when weights hold NaN or infinity");
}

std::array<double, 2> parse_pair(const std::string& option, const std::string& text) {
  std::array<double, 2> out{};
  const size_t comma = text.find(',');
  const auto number = [&](std::string_view part, double& value) {
    const auto [end, status] = std::from_chars(part.data(), part.data() + part.size(), value);
    return status == std::errc() && end == part.data() + part.size() && value >= 0 && std::isfinite(value);
  };
  if (comma == std::string::npos || !number(std::string_view(text).substr(0, comma), out[0]) ||
      !number(std::string_view(text).substr(comma + 1), out[1]))
    fail("{} {}: write two numbers from 0, for vision and text, such as 1,0.5", option, printable(text));
  return out;
}

std::optional<std::array<double, 2>> parse_weights(const std::string& text) {
  if (text.empty()) return std::nullopt;
  const auto out = parse_pair("--weights", text);
  if (out[0] + out[1] == 0) fail("--weights {}: one of the two must be above 0", printable(text));
  return out;
}

records::Plan plan_for(const records::Measurements& measurements, const std::string& digest,
                       const std::string& policy, const std::string& budget,
                       const plan::Preferences& preferences) {
  const auto& help = plan::find_policy(policy);
  const std::string limit = budget.empty() && help.needs_budget ? kDefaultBudget : budget;
  records::Plan out = plan::make_plan(measurements, policy, limit, preferences);
  const bool measured = help.needs_measurements || !out.rounding.plain();
  out.measurements_digest = measured ? digest : "";
  return out;
}

std::string record_digest(const io::Json& record) {
  return sha256(io::dump_json(record) + "\n");
}

std::string write_record(const std::filesystem::path& path, const io::Json& record) {
  const std::string text = io::dump_json(record) + "\n";
  io::write_file(path, text);
  return sha256(text);
}

int run(int argc, char** argv) {
  hold_standard_streams();
  // A pipe that closes or a full disk is seen where it is written to and cleaned up after; no signal kills.
  std::signal(SIGPIPE, SIG_IGN);
  std::signal(SIGXFSZ, SIG_IGN);
  catch_bus_errors();
  called_as = quoted(argc, argv);
  CLI::App app("nibble: dynamic 4-bit quantization of Hugging Face checkpoints");
  app.name("nibble");
  app.set_version_flag("--version",
                       fmt::format("nibble {} (codes by {}, bf16 products by {})", NIBBLE_VERSION,
                                   quant::instruction_set(), kernels::instruction_set()));
  app.require_subcommand(1);
  app.footer(
      "Example:\n  nibble quantize Qwen/Qwen2-VL-2B-Instruct -o qwen2-vl-2b-dynamic --budget 10%\n"
      "nibble COMMAND --help explains a command.");
  Common common;
  try {
    for (auto* add : {add_inspect, add_measure, add_plan, add_quantize, add_verify, add_eval, add_compare,
                      add_report, add_card, add_generate, add_trace})
      add(app, common);
    try {
      app.parse(argc, argv);
    } catch (const CLI::CallForHelp&) {
      print(app.help());
    } catch (const CLI::CallForVersion& e) {
      print(std::string(e.what()) + "\n");
    }
    return 0;
  } catch (const CLI::ParseError& e) {
    const auto chosen = app.get_subcommands();
    if (chosen.empty() && argc > 1 && argv[1][0] != '-')
      return complain(fmt::format("there is no command \"{}\"; see nibble --help for the commands", argv[1]));
    return complain(fmt::format("{}; see nibble {}--help", e.what(),
                                chosen.empty() ? "" : chosen.front()->get_name() + " "));
  } catch (const NoReader&) {
    return kNoReaderStatus;
  } catch (const std::bad_alloc&) {
    return complain("out of memory; close other programs, or use a machine with more");
  } catch (const std::filesystem::filesystem_error& e) {
    return complain(fmt::format("{}: {}", e.path1().string(), e.code().message()));
  } catch (const std::exception& e) {
    return complain(e.what());
  }
}

}  // namespace nibble::app
